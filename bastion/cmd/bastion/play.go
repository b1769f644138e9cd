package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"filippo.io/age"

	"mayfly/bastion/recording"
	"mayfly/internal/command"
	"mayfly/internal/durable"
	"mayfly/internal/hint"
)

const playHelp = `It decrypts a recording of the session mode with an age identity and shows it as it was seen, on this terminal. What the server
sent goes to the terminal as it is, control sequences among it: play a recording that you do not trust with -o json, or in a
terminal that you can throw away. The identity is never needed where the bastion runs; keep it elsewhere.

A recording that lacks its end is shown as far as it goes, and the verb fails.

Example:

  bastion play --identity reader.key --speed 2 --max-idle 2s 20261120T101500.000000Z-6d1f0c2a9b3e4f57-91ab.cast.age`

func playVerb() command.Verb {
	return command.Verb{
		Name:    "play",
		Args:    "--identity FILE [--speed N] [--max-idle DURATION] [-o json] RECORDING",
		Summary: "show a recorded session",
		Help:    playHelp,
		Run:     play,
	}
}

func play(ctx context.Context, c *command.Call) error {
	fs := c.Flags()
	identity := fs.String("identity", "", "age identity `file`, mode 0600")
	speed := fs.Float64("speed", 1, "how many times faster")
	idle := fs.Duration("max-idle", 0, "longest pause; 0: as long as it was")
	output := fs.String("o", "text", "output `form`: text or json")
	if err := c.Parse(fs); err != nil {
		return err
	}
	switch {
	case *identity == "" || fs.NArg() != 1:
		return command.Usagef("want --identity FILE and one recording")
	case !(*speed > 0 && *speed <= 1000):
		return command.Usagef("--speed %g: want more than 0, at most 1000", *speed)
	case *idle < 0:
		return command.Usagef("--max-idle %s: want a time", *idle)
	case *output != "text" && *output != "json":
		return command.Usagef("-o %s: want text or json", *output)
	}
	identities, err := readIdentities(*identity)
	if err != nil {
		return err
	}
	f, err := os.Open(fs.Arg(0))
	if err != nil {
		return fmt.Errorf("reading recording: %w", err)
	}
	defer f.Close()
	r, err := recording.Open(bufio.NewReader(f), identities...)
	if errors.Is(err, recording.ErrIdentity) {
		return hint.New(fmt.Errorf("%s: %w", fs.Arg(0), err), "the policy's session.recipients, when it was recorded, say whose identity can")
	}
	if err != nil {
		return unplayable(fs.Arg(0), err)
	}
	var how string
	if *output == "json" {
		how, err = r.Dump(c.Stdout)
	} else {
		fmt.Fprintf(c.Stderr, "bastion: play: %q, %s, %dx%d\n", r.Header.Title, time.Unix(r.Header.Timestamp, 0).UTC().Format(time.RFC3339), r.Header.Width, r.Header.Height)
		how, err = r.Play(ctx, c.Stdout, recording.Pace{Speed: *speed, MaxIdle: *idle})
	}
	if err != nil {
		return unplayable(fs.Arg(0), err)
	}
	fmt.Fprintf(c.Stderr, "bastion: play: the end: %q\n", how)
	return nil
}

func unplayable(name string, err error) error {
	err = fmt.Errorf("%s: %w", name, err)
	if errors.Is(err, recording.ErrTruncated) {
		return hint.New(err, "compare its SHA-256 with recording_sha256 in the audit log")
	}
	return err
}

func readIdentities(path string) ([]age.Identity, error) {
	secret, err := durable.ReadSecret(path)
	if err != nil {
		return nil, err
	}
	defer clear(secret)
	identities, err := age.ParseIdentities(bytes.NewReader(secret))
	if err != nil {
		return nil, hint.New(fmt.Errorf("reading identity %s: %w", path, err), "age-keygen makes one")
	}
	return identities, nil
}

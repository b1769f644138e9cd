package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"mayfly/internal/command"
	"mayfly/internal/durable"
	"mayfly/policies"
)

var keyChallengeVerb = command.Verb{
	Name:    "key challenge",
	Args:    "NAME [--dir DIR] [-o FILE]",
	Summary: "make a challenge for a person who enrols a key",
	Help: `Prints one line that the person's new key signs, and keeps it in DIR/challenges until it is answered. It names the fleet, the person
and the time, is good for one answer within 7 days, and is no secret: hand it to the person, who gives the file to
"bastion-agent enroll", or for a FIDO2 key to "ssh-keygen -O challenge=FILE -O write-attestation=FILE".

Example:

  fleetctl key challenge anna --dir lab -o anna.challenge`,
	Run: func(ctx context.Context, c *command.Call) error {
		flags := c.Flags()
		dir := dirFlag(flags)
		out := flags.String("o", "", "`file` to write the challenge to (default: standard output)")
		if err := c.Parse(flags); err != nil {
			return err
		}
		if *out == "json" || *out == "table" {
			return command.Usagef("-o names a file here: ./%s if that is its name", *out)
		}
		name, err := oneArgument(flags, "whose key it is to be: NAME")
		if err != nil {
			return err
		}
		d := state(*dir)
		f, err := d.fleet()
		if err != nil {
			return err
		}
		challenge, err := d.makeChallenge(f.Name, name, time.Now())
		if err != nil {
			return err
		}
		d.noteStranger(c, name)
		if *out == "" {
			_, err = c.Stdout.Write(challenge.Signed())
			return err
		}
		if err := durable.WriteFile(*out, challenge.Signed(), 0o644); err != nil {
			return errors.Join(err, d.withdraw(challenge)) // nobody has it
		}
		return nil
	},
}

// noteStranger says where a name is in none of the files yet: the key could not be added as things are.
func (d state) noteStranger(c *command.Call, name string) {
	if t, _, err := d.trust(); err == nil && slices.Contains(names(t), name) {
		return
	}
	if data, err := read(d.policyFile(), ""); err == nil {
		p, err := policies.Decode(d.policyFile(), data)
		if err != nil || hasKeys(p, name) {
			return
		}
	}
	fmt.Fprintf(c.Stderr, "fleetctl: note: nobody is called %q in %s: `fleetctl key add` will want [[engineer]] with that name\n", name, d.policyFile())
}

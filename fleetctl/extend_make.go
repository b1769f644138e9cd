package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"mayfly/internal/command"
	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/policies/statement"
	"mayfly/rebuild/extension"
)

func (d state) extensions() string { return d.path("extensions") }

var extendMakeVerb = command.Verb{
	Name:    "extend make",
	Args:    "SERVER --dir DIR --for TIME --reason TEXT",
	Summary: "write down that a server may live beyond its deadline, for approvers to sign",
	Help: `A server ends itself at its deadline, whatever the controller says. Where it cannot be rebuilt in time and has to go on, as many approvers
as the trust policy's threshold sign an extension of its present life. One life is extended at most 3 times, and never beyond 7 days from
its boot. The public ledger shows each extension with its signatures.

It writes the file only. Each approver signs it ("fleetctl extend sign"); then "fleetctl extend send", within 24 hours, hands it to the
signer and to the server, which verify it by themselves.

Example:

  fleetctl extend make nl-1 --dir lab --for 12h --reason "the data centre of the controller has no power"`,
	Run: runExtendMake,
}

func runExtendMake(ctx context.Context, c *command.Call) error {
	fs := c.Flags()
	dir, reason := dirFlag(fs), fs.String("reason", "", "why, in one `line`")
	longer := fs.Duration("for", 0, "how much `longer` than its deadline now")
	out := fs.String("out", "", "`file` to write (default: in DIR/extensions)")
	if err := c.Parse(fs); err != nil {
		return err
	}
	if fs.NArg() != 1 || *reason == "" {
		return command.Usagef("one SERVER, --for and --reason are needed")
	}
	if err := span(*longer, extension.MaxLife); err != nil {
		return err
	}
	if err := statement.CheckReason(*reason); err != nil {
		return command.Usagef("--reason: %v", err)
	}
	d, name, now := state(*dir), fs.Arg(0), time.Now().UTC().Truncate(time.Second)
	t, _, err := d.trust()
	if err != nil {
		return err
	}
	s, err := d.openStore(ctx)
	if err != nil {
		return err
	}
	server, err := s.Server(ctx, name)
	if cerr := s.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return hint.New(err, "`fleetctl status` lists the servers")
	}
	if server.Deadline.IsZero() || !now.Before(server.Deadline) {
		return command.Refuse(hint.New(fmt.Errorf("%s has no life that could go on: its deadline was %s", name, server.Deadline.Format(time.RFC3339)), "`fleetctl rotate` begins its next one"))
	}
	e := extension.Extension{Kind: extension.Kind, Fleet: t.Fleet, Server: name, Epoch: server.Epoch,
		Until: server.Deadline.Add(*longer).UTC().Truncate(time.Second), Reason: *reason, Made: now}
	if most := server.BootedAt.Add(extension.MaxLife); e.Until.After(most) {
		return command.Refuse(hint.New(extension.Refuse(extension.TooLong, "%s is later than %s after its boot", e.Until.Format(time.RFC3339), extension.MaxLife),
			"at most --for %s", most.Sub(server.Deadline).Truncate(time.Second)))
	}
	data, err := e.Marshal()
	if err != nil {
		return command.Usagef("%v", err)
	}
	path := *out
	if path == "" {
		path = filepath.Join(d.extensions(), fmt.Sprintf("%s-%d-%s.json", name, e.Epoch, e.Until.Format("20060102T150405Z")))
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("making the directory of extensions: %w", err)
	}
	if _, err := os.Lstat(path); err == nil {
		return command.Refuse(hint.New(fmt.Errorf("%s exists", path), "sign that one, or give another --out"))
	}
	if err := durable.WriteFile(path, data, 0o644); err != nil {
		return err
	}
	fmt.Fprintln(c.Stdout, path)
	fmt.Fprintf(c.Stderr, "fleetctl: next: %d approvers sign it: fleetctl extend sign %s --dir %s --key FILE\n", t.Threshold, path, *dir)
	return nil
}

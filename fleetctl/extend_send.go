package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"mayfly/fleetctl/signer"
	"mayfly/internal/command"
	"mayfly/internal/hint"
	"mayfly/inventory/store"
	"mayfly/rebuild/extension"
	"mayfly/rebuild/join"
)

var extendSendVerb = command.Verb{
	Name:    "extend send",
	Args:    "FILE --dir DIR",
	Summary: "hand a signed extension to the signer and to the server",
	Help: `The signer verifies the signatures, logs the extension in the public ledger, and gives the life certificates until its new end. The server
gets the file over its stream from ` + "`fleetctl serve`" + `, now or when it comes back, and verifies it by itself. Sent again, it changes nothing.

Example:

  fleetctl extend send lab/extensions/nl-1-7-20261121T120000Z.json --dir lab`,
	Run: runExtendSend,
}

func runExtendSend(ctx context.Context, c *command.Call) error {
	fs := c.Flags()
	dir := dirFlag(fs)
	if err := c.Parse(fs); err != nil {
		return err
	}
	if fs.NArg() != 1 {
		return command.Usagef("one FILE is needed")
	}
	d, path, now := state(*dir), fs.Arg(0), time.Now()
	t, _, err := d.trust()
	if err != nil {
		return err
	}
	data, claim, err := readExtension(path)
	if err != nil {
		return err
	}
	sigs, err := readSignatures(path)
	if err != nil {
		return err
	}
	s, err := d.openStore(ctx)
	if err != nil {
		return err
	}
	return errors.Join(func() error {
		server, err := s.Server(ctx, claim.Server)
		if err != nil {
			return hint.New(err, "`fleetctl status` lists the servers")
		}
		e, people, err := extension.Open(t, data, sigs, server.Name, server.Epoch, now)
		if err != nil {
			return hint.New(err, "`fleetctl extend make` writes one for the present life, %d approvers sign it", t.Threshold)
		}
		ends, err := signer.Dial(string(d)).Extend(ctx, data, sigs)
		if _, refused := join.IsRefusal(err); refused {
			return hint.New(err, "nothing was changed")
		}
		if err != nil {
			return err
		}
		if err := s.Extend(ctx, e.Server, ends, store.Extension{Epoch: e.Epoch, Statement: data, Sig: sigs}); err != nil {
			return err
		}
		fmt.Fprintf(c.Stdout, "life %d of %s goes on until %s, by %v\n", e.Epoch, e.Server, ends.Format(time.RFC3339), people)
		return nil
	}(), s.Close())
}

package main

import (
	"context"

	"mayfly/fleetctl/signer"
	"mayfly/fleetctl/users"
	"mayfly/internal/account"
	"mayfly/internal/command"
)

var signerVerb = command.Verb{
	Name:    "signer",
	Args:    "--dir DIR",
	Summary: "run the process that holds the fleet's keys",
	Help: `Answers on DIR/signer.sock until it is interrupted. It alone reads DIR/signer; it checks evidence, names, lifetimes
and rates by itself, and records every certificate in DIR/signer/certificates.jsonl before handing it out.

Where DIR/users.toml names users for signer, serve and checkin ("fleetctl init --users"), it runs as its own, and asks the kernel who is at the other end of its
socket: serve's user may ask for what serve does, checkin's for its own certificate, everybody else for nothing. It refuses to start where something of the
directory is not whose it has to be (fleetctl doctor). Without that file all processes are one user: socket and keys are that user's alone (0600, 0700), and
its own process keeps the keys out of the memory of those that face servers and apps, not from the user they run as (docs/threat-model.md).

Example:

  fleetctl signer --dir lab`,
	Run: func(ctx context.Context, c *command.Call) error {
		fs := c.Flags()
		dir := dirFlag(fs)
		if err := c.Parse(fs); err != nil {
			return err
		}
		if err := noArguments(fs); err != nil {
			return err
		}
		if _, err := users.Start(*dir, users.Signer); err != nil {
			return err
		}
		if err := account.Undumpable(); err != nil {
			return err
		}
		return signer.Serve(ctx, *dir, logger(c.Stderr))
	},
}

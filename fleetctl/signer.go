package main

import (
	"context"

	"mayfly/fleetctl/signer"
	"mayfly/internal/command"
)

var signerVerb = command.Verb{
	Name:    "signer",
	Args:    "--dir DIR",
	Summary: "run the process that holds the fleet's keys",
	Help: `Answers on DIR/signer.sock until it is interrupted. It alone reads DIR/signer; it checks evidence, names, lifetimes
and rates by itself, and records every certificate in DIR/signer/certificates.jsonl before handing it out.

It runs as the same user as the controller's other processes: socket and keys are that user's alone (0600, 0700). Its own process
keeps the keys out of the memory of those that face servers and apps, not from the user they run as (docs/threat-model.md).

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
		return signer.Serve(ctx, *dir, logger(c.Stderr))
	},
}

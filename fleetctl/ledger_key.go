package main

import (
	"context"
	"fmt"

	"mayfly/internal/command"
	"mayfly/policies/ledger"
	"mayfly/policies/trust"
)

var ledgerKeyVerb = command.Verb{
	Name:    "ledger key",
	Args:    "--trust FILE",
	Summary: "show the ledger's verifier key, for tools of others that read such logs",
	Help: `Prints each of ledger_keys in the form of signed notes, "NAME+ID+KEY". ` + "`fleetctl witness`" + ` of this fleet knows them already.

Example:

  fleetctl ledger key --trust trust.json`,
	Run: func(ctx context.Context, c *command.Call) error {
		flags := c.Flags()
		file := flags.String("trust", "", "`file` with the trust policy")
		if err := c.Parse(flags); err != nil {
			return err
		}
		if err := noArguments(flags); err != nil {
			return err
		}
		if *file == "" {
			return command.Usagef("--trust is needed")
		}
		data, err := readBounded(*file, "the fleet's trust.json", trust.MaxSize)
		if err != nil {
			return err
		}
		t, err := trust.Parse(data)
		if err != nil {
			return fmt.Errorf("%s: %w", *file, err)
		}
		for _, line := range t.LedgerKeys {
			vkey, err := ledger.VerifierKey(t.Fleet, line)
			if err != nil {
				return err
			}
			fmt.Fprintln(c.Stdout, vkey)
		}
		return nil
	},
}

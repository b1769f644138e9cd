package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"mayfly/internal/audit"
	"mayfly/internal/command"
	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/policies/ledger"
)

var ledgerProofVerb = command.Verb{
	Name:    "ledger proof",
	Args:    "--dir DIR --index N [--wait DURATION] [--out FILE]",
	Summary: "make the proof that one entry is in this fleet's ledger",
	Help: `Writes the proof (c2sp.org/tlog-proof) that entry N is in DIR/public/ledger, under a checkpoint that as many witnesses cosigned as
DIR/trust.json asks for. --wait gives them time: they are asked by ` + "`fleetctl serve`" + `, each ten seconds.

Example:

  fleetctl ledger proof --dir lab --index 17 --wait 1m --out entry-17.proof`,
	Run: runLedgerProof,
}

// ledgerProofLook is how often a proof that is waited for is tried.
const ledgerProofLook = 200 * time.Millisecond

func runLedgerProof(ctx context.Context, c *command.Call) error {
	flags := c.Flags()
	dir := dirFlag(flags)
	index := flags.Int64("index", -1, "`number` of the entry")
	wait := flags.Duration("wait", 0, "longest `time` that witnesses get")
	out := flags.String("out", "", "`file` to write, instead of stdout")
	if err := c.Parse(flags); err != nil {
		return err
	}
	if err := noArguments(flags); err != nil {
		return err
	}
	if *index < 0 {
		return command.Usagef("--index is needed")
	}
	d := state(*dir)
	t, _, err := d.trust()
	if err != nil {
		return err
	}
	keys, err := ledger.KeysOf(t)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, *wait)
	defer cancel()
	proof, err := d.ledgerProof(ctx, keys, uint64(*index))
	if err != nil {
		return err
	}
	if *out != "" {
		return durable.WriteFile(*out, proof, 0o644)
	}
	_, err = c.Stdout.Write(proof)
	return err
}

// ledgerProof makes the proof of an entry, and waits until ctx ends for enough witnesses.
func (d state) ledgerProof(ctx context.Context, keys ledger.Keys, index uint64) ([]byte, error) {
	tick := time.NewTicker(ledgerProofLook)
	defer tick.Stop()
	for {
		p, err := audit.Prove(d.ledger(), index)
		if err == nil {
			if _, err = keys.Open(p.Marshal()); err == nil {
				return p.Marshal(), nil
			}
		}
		if errors.Is(err, os.ErrNotExist) {
			return nil, hint.New(err, "%s is no ledger: `fleetctl signer` makes it", d.ledger())
		}
		select {
		case <-ctx.Done():
			return nil, hint.New(fmt.Errorf("entry %d of the ledger: %w", index, err), "--wait gives witnesses time; `fleetctl serve` asks those in fleet.toml")
		case <-tick.C:
		}
	}
}

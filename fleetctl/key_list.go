package main

import (
	"context"
	"errors"
	"time"

	"mayfly/internal/command"
	"mayfly/policies"
)

var keyListVerb = command.Verb{
	Name:    "key list",
	Args:    "[--dir DIR] [-o json]",
	Summary: "show the enrolled keys, with their evidence",
	Help: `Reads DIR/policy.toml and verifies the evidence of every key in it, as everything that loads a policy does. A key whose evidence is
rejected stands with its reason: it lets nobody in. Keys that were revoked for good come last.

Example:

  fleetctl key list --dir lab`,
	Run: func(ctx context.Context, c *command.Call) error {
		flags := c.Flags()
		dir, output := dirFlag(flags), outputFlag(flags)
		if err := c.Parse(flags); err != nil {
			return err
		}
		if err := errors.Join(noArguments(flags), checkFormat(*output)); err != nil {
			return err
		}
		p, err := state(*dir).keys()
		if err != nil {
			return err
		}
		report := listReport{Keys: keyReports(p), Revoked: append([]string{}, p.Hardware.Revoked...)}
		var rows [][]string
		for _, k := range report.Keys {
			rows = append(rows, []string{k.Name, k.Fingerprint, k.keyType(), k.state(), k.enrolledAt(), k.text()})
		}
		for _, print := range report.Revoked {
			rows = append(rows, []string{"-", print, "-", "revoked"})
		}
		return show(c.Stdout, *output, report, []string{"NAME", "KEY", "TYPE", "STATE", "CHALLENGED", "EVIDENCE"}, rows)
	},
}

// listReport is what `fleetctl key list -o json` prints. Its fields stay.
type listReport struct {
	Keys    []keyReport `json:"keys"`
	Revoked []string    `json:"revoked"` // fingerprints
}

// keys are those of policy.toml, which need not be one that may take effect: whoever looks wants to see.
func (d state) keys() (policies.Policy, error) {
	f, err := d.fleet()
	if err != nil {
		return policies.Policy{}, err
	}
	data, err := read(d.policyFile(), "write the fleet's policy.toml first")
	if err != nil {
		return policies.Policy{}, err
	}
	p, err := policies.Decode(d.policyFile(), data)
	if err != nil {
		return policies.Policy{}, err
	}
	return p.Verified(f, time.Now()), nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"mayfly/internal/canonical"
	"mayfly/internal/command"
	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/policies/bundle"
)

var policyBundleVerb = command.Verb{
	Name:    "policy bundle",
	Args:    "--dir DIR",
	Summary: "make the bundle that people sign from fleet.toml and policy.toml",
	Help: `Checks both files like ` + "`fleetctl policy check`" + `, and writes them as one file, DIR/bundle.json, whose version is
the policy's. It takes effect once enough people have signed it. A version that is not higher than that of a bundle in
force is refused: raise version in policy.toml.

While the new bundle gathers its signatures the old one is no longer there for a process that starts; those that run keep it.

Example:

  fleetctl policy bundle --dir lab && fleetctl policy sign --dir lab --key ana && fleetctl policy sign --dir lab --key bo`,
	Run: runPolicyBundle,
}

func runPolicyBundle(ctx context.Context, c *command.Call) error {
	flags := c.Flags()
	dir := dirFlag(flags)
	if err := c.Parse(flags); err != nil {
		return err
	}
	if err := noArguments(flags); err != nil {
		return err
	}
	d, now := state(*dir), time.Now()
	f, p, err := d.checked(now)
	if err != nil {
		return err
	}
	t, _, err := d.trust()
	if err != nil {
		return err
	}
	if t.Fleet != f.Name {
		return hint.New(fmt.Errorf("fleet.toml is of fleet %s, the trust policy of %s", f.Name, t.Fleet), "--dir names the fleet's own directory")
	}
	if old, sigs, err := d.bundleBytes(); err == nil {
		if people, err := t.Approved(bundle.Namespace, old, sigs); err == nil {
			var b bundle.Bundle
			if err := canonical.Parse(old, bundle.MaxSize, &b); err == nil && p.Version <= b.Version {
				return command.Refuse(hint.New(fmt.Errorf("policy version %d is not higher than %d, signed by %d people", p.Version, b.Version, len(people)),
					"raise version in %s", d.policyFile()))
			}
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	data, err := bundle.Make(f, p, now)
	if err != nil {
		return err
	}
	if err := os.Remove(signatures(d.bundleFile())); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing the old signatures: %w", err)
	}
	if err := durable.WriteFile(d.bundleFile(), data, 0o644); err != nil {
		return err
	}
	fmt.Fprintf(c.Stdout, "%s: version %d, until %s\n", d.bundleFile(), p.Version, p.Expires.Format(time.RFC3339))
	fmt.Fprintf(c.Stderr, "fleetctl: next: `fleetctl policy sign` by %d people\n", t.Threshold)
	return nil
}

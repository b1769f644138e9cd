package main

import (
	"context"
	"fmt"
	"time"

	"mayfly/internal/canonical"
	"mayfly/internal/command"
	"mayfly/internal/hint"
	"mayfly/policies/bundle"
)

var policySignVerb = command.Verb{
	Name:    "policy sign",
	Args:    "--dir DIR --key FILE",
	Summary: "add one person's signature to the policy bundle",
	Help: `Shows what DIR/bundle.json says and adds a signature over its exact bytes to DIR/bundle.json.sig. FILE is an approver's
private key (mode 0600), or the public key of one that an ssh-agent holds: then touch the hardware key when it blinks.

A second signature of the same person is refused: the threshold counts people.

Example:

  fleetctl policy sign --dir lab --key ~/.ssh/id_ed25519_sk.pub`,
	Run: func(ctx context.Context, c *command.Call) error {
		fs := c.Flags()
		dir := dirFlag(fs)
		key := fs.String("key", "", "`file` of the approver's private key, or public key in the agent")
		if err := c.Parse(fs); err != nil {
			return err
		}
		if err := noArguments(fs); err != nil {
			return err
		}
		if *key == "" {
			return command.Usagef("--key is needed")
		}
		d := state(*dir)
		t, _, err := d.trust()
		if err != nil {
			return err
		}
		data, _, err := d.bundleBytes()
		if err != nil {
			return err
		}
		var b bundle.Bundle
		if err := canonical.Parse(data, bundle.MaxSize, &b); err != nil {
			return command.Refuse(hint.New(fmt.Errorf("%s: %w", d.bundleFile(), err), "`fleetctl policy bundle` makes it anew"))
		}
		if b.Fleet != t.Fleet {
			return command.Refuse(fmt.Errorf("%s is of fleet %q, the trust policy of %q", d.bundleFile(), b.Fleet, t.Fleet))
		}
		fmt.Fprintf(c.Stderr, "fleetctl: policy %d of fleet %s: %d servers, %d engineers, %d grants, until %s\n",
			b.Version, b.Fleet, len(b.Inventory.Servers), len(b.Policy.Engineers), len(b.Policy.Grants), b.Expires.Format(time.RFC3339))
		a, err := approve(t, bundle.Namespace, d.bundleFile(), data, *key)
		if err != nil {
			return err
		}
		a.report(c, t, d.bundleFile())
		return nil
	},
}

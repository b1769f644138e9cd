package main

import (
	"context"
	"fmt"
	"os"

	"mayfly/internal/command"
	"mayfly/internal/hint"
	"mayfly/policies/bundle"
)

var policySignVerb = command.Verb{
	Name:    "policy sign",
	Args:    "--dir DIR --key FILE",
	Summary: "add one person's signature to the policy bundle",
	Help: `Shows what DIR/bundle.json (or DIR/bundle-next.json, where a newer one waits for signatures) says (who may go where,
from where, which keys, floors and rules, which history is believed; long lists are cut, and the rest is counted), and adds a signature over its exact bytes. With enough signatures a waiting one takes the old one's place. FILE is an approver's
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
		path := d.bundleFile()
		if _, err := os.Stat(d.nextFile()); err == nil {
			path = d.nextFile()
		}
		data, err := read(path, "`fleetctl policy bundle` makes it")
		if err != nil {
			return err
		}
		b, err := bundle.Parse(data) // what could never take effect is not signed
		if err != nil {
			return command.Refuse(hint.New(fmt.Errorf("%s: %w", path, err), "`fleetctl policy bundle` makes it anew"))
		}
		if b.Fleet != t.Fleet {
			return command.Refuse(fmt.Errorf("%s is of fleet %q, the trust policy of %q", path, b.Fleet, t.Fleet))
		}
		if b.Inventory.Test != t.Test {
			return command.Refuse(differentTest(b.Inventory.Test, t.Test))
		}
		var was *bundle.Bundle // it would follow
		if path == d.nextFile() {
			if was, err = d.bundleInForce(); err != nil {
				return err
			}
		}
		if err := showBundle(c.Stderr, path, data, b, was); err != nil {
			return err
		}
		a, err := approve(d.signers(t), bundle.Namespace, path, data, *key)
		if err != nil {
			return err
		}
		a = a.present(c)
		a.report(c, t, path)
		if path == d.nextFile() && len(a.people) >= t.Threshold {
			if err := d.install(t); err != nil {
				return err
			}
			fmt.Fprintf(c.Stdout, "policy %d is in force\n", b.Version)
		}
		return nil
	},
}

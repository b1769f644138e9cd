package main

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"mayfly/internal/command"
	"mayfly/internal/hint"
	"mayfly/inventory"
)

var robotKeysVerb = command.Verb{
	Name:    "robot-keys",
	Args:    "--dir DIR SERVER",
	Summary: "print the authorized_keys lines of the robots that may go to a host",
	Help: `Prints, for each robot of the signed policy that may go to SERVER, a line "# NAME" and the line for that account's
authorized_keys: from the fleet's bastions only, no terminal and no forwarding, and one forced command, which runs what was asked for
only if it is, to the letter, one of the robot's commands. The account's shell must be a POSIX one.

Give the accounts no other keys, and run it again with every policy.

Example:

  fleetctl robot-keys --dir office web-1`,
	Run: func(ctx context.Context, c *command.Call) error {
		fs := c.Flags()
		dir := dirFlag(fs)
		output := outputFlag(fs)
		if err := c.Parse(fs); err != nil {
			return err
		}
		if fs.NArg() != 1 {
			return command.Usagef("robot-keys takes one server")
		}
		if err := checkFormat(*output); err != nil {
			return err
		}
		d := state(*dir)
		t, _, err := d.trust()
		if err != nil {
			return err
		}
		b, err := d.bundle(t, 0, time.Now())
		if err != nil {
			return err
		}
		name := fs.Arg(0)
		server, ok := b.Inventory.Server(name)
		if !ok || server.Role != inventory.RoleHost {
			return hint.New(command.Refuse(fmt.Errorf("%s is no host of fleet %s: robots go nowhere else", name, b.Inventory.Name)),
				"a host is a [[server]] with role = \"host\" in fleet.toml")
		}
		if len(b.Inventory.AllBastions()) == 0 {
			return hint.New(fmt.Errorf("fleet %s has no bastion", b.Inventory.Name), "add a [[bastion]] to fleet.toml")
		}
		var bastions []netip.Addr
		for _, x := range b.Inventory.AllBastions() {
			bastions = append(bastions, x.Address)
		}
		keys := []robotKey{}
		for _, r := range b.Policy.RobotsOf(name, b.Inventory, time.Now()) {
			keys = append(keys, robotKey{Robot: r.Name, Line: r.AuthorizedKey(bastions)})
		}
		if *output == "json" {
			return show(c.Stdout, *output, keys, nil, nil)
		}
		for _, k := range keys {
			fmt.Fprintf(c.Stdout, "# %s\n%s\n", k.Robot, k.Line)
		}
		if len(keys) == 0 {
			fmt.Fprintf(c.Stderr, "fleetctl: no robot may go to %s\n", name)
		}
		return nil
	},
}

// robotKey is a robot's line for one host.
type robotKey struct {
	Robot string `json:"robot"`
	Line  string `json:"line"`
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"slices"
	"strconv"
	"time"

	"mayfly/fleetctl/plan"
	"mayfly/fleetctl/rotate"
	"mayfly/internal/command"
	"mayfly/inventory"
	"mayfly/inventory/store"
	"mayfly/policies"
	"mayfly/policies/bundle"
)

var diffVerb = command.Verb{
	Name:    "diff",
	Args:    "--dir DIR [--check]",
	Summary: "show where the inventory and the fleet as it is differ",
	Help: `Holds three things against one another: fleet.toml (what people have written), the signed inventory (what is acted on), and what the
controller knows of the servers (what is there). It changes nothing. With --check the exit code is 1 if anything differs.

Differences: not_signed, removed_not_signed, changed_not_signed (fleet.toml is ahead of the signed inventory); never_booted,
not_in_inventory (the store knows it, the inventory does not), silent, past_deadline, revoked, tainted, quarantined, release (it runs another than
the one in use), evidence (its boot is proved less than the policy asks), spare_serving.

Example:

  fleetctl diff --dir lab -o json`,
	Run: func(ctx context.Context, c *command.Call) error {
		fs := c.Flags()
		dir := dirFlag(fs)
		check := fs.Bool("check", false, "exit code 1 if anything differs")
		output := outputFlag(fs)
		if err := c.Parse(fs); err != nil {
			return err
		}
		if err := errors.Join(noArguments(fs), checkFormat(*output)); err != nil {
			return err
		}
		d, now := state(*dir), time.Now()
		t, _, err := d.trust()
		if err != nil {
			return err
		}
		seen, err := d.policySeen(ctx)
		if err != nil {
			return err
		}
		b, err := d.bundle(t, seen, now)
		if err != nil {
			return err
		}
		servers, err := d.servers(ctx, c)
		if err != nil {
			return err
		}
		all := []difference{}
		if written, err := d.fleet(); err == nil {
			all = append(all, unsignedDifferences(b.Inventory, written)...)
		} else if !isNotExist(err) {
			return err
		}
		inUse := uint64(0)
		if r, err := d.release(t, b.Policy.Image.MinVersion, now); err == nil {
			inUse = r.Statement.Version
		} else {
			fmt.Fprintf(c.Stderr, "fleetctl: diff: releases are not compared: %v\n", err)
		}
		all = append(all, realDifferences(b, servers, inUse, now)...)
		rows := make([][]string, 0, len(all))
		for _, x := range all {
			rows = append(rows, []string{x.Server, x.Difference, x.Inventory, x.Reality})
		}
		if err := show(c.Stdout, *output, all, []string{"SERVER", "DIFFERENCE", "INVENTORY", "REALITY"}, rows); err != nil {
			return err
		}
		if *check && len(all) > 0 {
			return fmt.Errorf("%d differences", len(all))
		}
		return nil
	},
}

func isNotExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// difference is one thing that is not as it should be.
type difference struct {
	Server     string `json:"server"`
	Difference string `json:"difference"`
	Inventory  string `json:"inventory"`
	Reality    string `json:"reality"`
}

// unsignedDifferences are where fleet.toml is ahead of the signed inventory.
func unsignedDifferences(signed, written inventory.Fleet) []difference {
	var all []difference
	was := make(map[string]inventory.Server, len(signed.Servers))
	for _, s := range signed.Servers {
		was[s.Name] = s
	}
	for _, s := range written.Servers {
		old, ok := was[s.Name]
		delete(was, s.Name)
		switch {
		case !ok:
			all = append(all, difference{s.Name, "not_signed", "in fleet.toml", "not in the signed inventory"})
		case !reflect.DeepEqual(old, s):
			all = append(all, difference{s.Name, "changed_not_signed", changedKeys(old, s), "otherwise in the signed inventory"})
		}
	}
	for _, s := range signed.Servers {
		if _, left := was[s.Name]; left {
			all = append(all, difference{s.Name, "removed_not_signed", "not in fleet.toml", "still in the signed inventory"})
		}
	}
	return all
}

// changedKeys names the keys of [[server]] that differ.
func changedKeys(a, b inventory.Server) string {
	text := ""
	x, y := reflect.ValueOf(a), reflect.ValueOf(b)
	for i := range x.NumField() {
		if reflect.DeepEqual(x.Field(i).Interface(), y.Field(i).Interface()) {
			continue
		}
		if text != "" {
			text += ", "
		}
		text += x.Type().Field(i).Tag.Get("toml")
	}
	return text
}

// realDifferences are where servers are not as the signed inventory and policy say.
func realDifferences(b *bundle.Bundle, servers []store.Server, inUse uint64, now time.Time) []difference {
	var all []difference
	known := make(map[string]store.Server, len(servers))
	for _, s := range servers {
		known[s.Name] = s
	}
	for _, x := range b.Inventory.Rebuilt() {
		k, ok := known[x.Name]
		delete(known, x.Name)
		add := func(what, want, is string) { all = append(all, difference{x.Name, what, want, is}) }
		if !ok || k.State == inventory.New {
			add("never_booted", x.Role, "never booted by this controller")
			continue
		}
		deadline := rotate.Deadline(k, b.Policy.Rotation.MaxAge.Std())
		serves := k.State == inventory.Serving
		switch {
		case k.State == inventory.Quarantined:
			add("quarantined", "serving", k.Cause)
		case k.Revoked:
			add("revoked", "serving", "its ticket came twice")
		case k.Tainted:
			add("tainted", "serving", k.TaintReason)
		case serves && plan.Passed(deadline, now):
			add("past_deadline", "max_age "+b.Policy.Rotation.MaxAge.String(), "its life ended "+now.Sub(deadline).Round(time.Second).String()+" ago")
		case serves && now.Sub(k.HealthAt) > plan.FreshFor:
			add("silent", "serving", "heard of "+lastWord(k.HealthAt, now))
		}
		if serves && inUse != 0 && k.Release != "" && k.Release != strconv.FormatUint(inUse, 10) {
			add("release", strconv.FormatUint(inUse, 10), k.Release)
		}
		if serves && b.Policy.Image.RequiresTPM() == policies.TPMRequired && k.Evidence != "attested" {
			add("evidence", "attested", k.Evidence)
		}
		if serves && x.Spare {
			add("spare_serving", "standby", "serving")
		}
	}
	var gone []string
	for name := range known {
		gone = append(gone, name)
	}
	slices.Sort(gone)
	for _, name := range gone {
		all = append(all, difference{name, "not_in_inventory", "no such server", string(known[name].State)})
	}
	return all
}

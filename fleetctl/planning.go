package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"mayfly/fleetctl/plan"
	"mayfly/fleetctl/rotate"
	"mayfly/internal/command"
	"mayfly/internal/hint"
	"mayfly/inventory"
	"mayfly/inventory/store"
)

// planning is what a plan is made from, and what is shown beside it.
type planning struct {
	snapshot plan.Snapshot
	health   plan.Health
	rules    plan.Rules
	alert    time.Duration
}

// planning reads it: the signed policy, the release in use, and all that the store knows.
func (d state) planning(ctx context.Context, c *command.Call, now time.Time) (planning, error) {
	g, err := d.grounds(ctx, c, now)
	if err != nil {
		return planning{}, err
	}
	rotation := g.bundle.Policy.Rotation
	var servers []store.Server
	var known rotate.Known
	p := planning{rules: g.rules(), alert: rotation.Schedule.Alert.Std()}
	err = d.reading(ctx, c, func(s store.Store) error {
		if servers, err = s.Servers(ctx); err != nil {
			return err
		}
		known, err = rotate.ReadKnown(ctx, s)
		return err
	})
	if err != nil {
		return planning{}, err
	}
	known.Here = here(g.bundle.Inventory)
	p.snapshot, p.health = rotate.Snapshot(g.bundle, g.release.Statement.Version, servers)
	known.Into(&p.snapshot, servers, zones(rotation), now)
	return p, nil
}

// here is the server of the fleet that this process runs on, "" for none.
func here(f inventory.Fleet) string {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return "" // nobody could tell; then it is another bound of one controller at a time that holds
	}
	var own []netip.Addr
	for _, a := range addresses {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			own = append(own, p.Addr().Unmap())
		}
	}
	return rotate.Here(f, own)
}

// at lets time pass as if nothing happened meanwhile: who is heard of now is heard of then.
func (p *planning) at(now, then time.Time) {
	for name, heard := range p.health {
		p.health[name] = heard.Add(then.Sub(now))
	}
}

// zone is where a region's windows are, UTC if it has none; of several the last one counts.
func (p planning) zone(region string) *time.Location {
	zone := time.UTC
	for _, w := range p.rules.Windows {
		if z := p.snapshot.Zones[w.Zone]; z != nil && (len(w.Regions) == 0 || slices.Contains(w.Regions, region)) {
			zone = z
		}
	}
	return zone
}

// windowed reports whether a region's planned rotations begin only at times.
func (p planning) windowed(region string) bool {
	return slices.ContainsFunc(p.rules.Windows, func(w plan.Window) bool {
		return len(w.Regions) == 0 || slices.Contains(w.Regions, region)
	}) || slices.ContainsFunc(p.rules.Blackouts, func(b plan.Blackout) bool {
		return len(b.Regions) == 0 || slices.Contains(b.Regions, region)
	})
}

// modes are what a plan may be asked for, beside what is due.
var modes = []plan.Mode{plan.Everyone, plan.Upgrade, plan.Emergency, plan.Single}

// planFlags are what somebody wants to see a plan for. It shows, and has nothing done: any mode is anybody's to look at.
type planFlags struct {
	mode  plan.Mode
	only  []string
	lost  []string
	retry *bool
	all   *bool
}

func newPlanFlags(fs *flag.FlagSet) *planFlags {
	f := &planFlags{
		all:   fs.Bool("all", false, "as --mode repave: every server now, not only those near their deadline"),
		retry: fs.Bool("retry", false, "try quarantined servers again"),
	}
	fs.Func("mode", "`mode` of the run: scheduled, repave, upgrade, emergency or single", func(s string) error {
		f.mode = plan.Mode(s)
		if s == "scheduled" {
			f.mode = plan.Scheduled
		} else if !slices.Contains(modes, f.mode) {
			return fmt.Errorf("it is scheduled, repave, upgrade, emergency or single")
		}
		return nil
	})
	fs.Func("only", "`server` of --mode single; may be repeated", func(s string) error {
		f.only = append(f.only, s)
		return nil
	})
	fs.Func("lost", "`server` that is known to be dead: it counts as no capacity and is rebuilt without a drain; may be repeated", func(s string) error {
		f.lost = append(f.lost, s)
		return nil
	})
	return f
}

func (f *planFlags) check() error {
	if *f.all && f.mode != plan.Scheduled && f.mode != plan.Everyone {
		return command.Usagef("--all is --mode repave, and not %s", f.mode)
	}
	if *f.all {
		f.mode = plan.Everyone
	}
	if (f.mode == plan.Single) != (len(f.only) > 0) {
		return command.Usagef("--mode single goes with --only SERVER")
	}
	return nil
}

// apply puts them into the rules, if the fleet has the servers.
func (f *planFlags) apply(p *planning) error {
	for _, name := range slices.Concat(f.only, f.lost) {
		if err := p.known(name); err != nil {
			return err
		}
	}
	r := &p.rules
	r.Mode, r.Only, r.Lost, r.Retry, r.All = f.mode, f.only, f.lost, *f.retry, f.mode == plan.Everyone
	return nil
}

// known refuses a name that no server of the plan has.
func (p planning) known(name string) error {
	if slices.ContainsFunc(p.snapshot.Servers, func(s plan.Server) bool { return s.Name == name }) {
		return nil
	}
	var near []string
	for _, s := range p.snapshot.Servers {
		if strings.HasPrefix(s.Name, name) && len(near) < 5 {
			near = append(near, s.Name)
		}
	}
	err := command.Usagef("%s: no such server among those that are rebuilt", name)
	if len(near) > 0 {
		return hint.New(err, "there are %s", strings.Join(near, ", "))
	}
	return err
}

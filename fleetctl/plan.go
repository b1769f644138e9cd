package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strconv"
	"time"

	"mayfly/fleetctl/plan"
	"mayfly/fleetctl/rotate"
	"mayfly/internal/command"
	"mayfly/internal/hint"
)

var planVerb = command.Verb{
	Name:    "plan",
	Args:    "--dir DIR [--all]",
	Summary: "show which servers rotate would rebuild now, which wait, and why",
	Help: `Plans from the signed policy, the release in use and what the store knows, and changes nothing. Servers are listed in the
order in which they would go: new ones, then the earliest deadline. The same planner decides while ` + "`fleetctl rotate`" + ` runs.

Rules that cannot keep both max_age and a region's floor are refused with the arithmetic (exit code 3).

Example:

  fleetctl plan --dir lab --all`,
	Run: func(ctx context.Context, c *command.Call) error {
		fs := c.Flags()
		dir := dirFlag(fs)
		asked := askedFlags(fs)
		output := outputFlag(fs)
		if err := c.Parse(fs); err != nil {
			return err
		}
		if err := errors.Join(noArguments(fs), checkFormat(*output)); err != nil {
			return err
		}
		d, now := state(*dir), time.Now()
		g, err := d.grounds(ctx, c, now)
		if err != nil {
			return err
		}
		servers, err := d.servers(ctx, c)
		if err != nil {
			return err
		}
		rules := g.rules()
		asked.apply(&rules)
		p, err := rotate.MakePlan(g.bundle, g.release.Statement.Version, servers, rules, now)
		if err != nil {
			return refusedPlan(err)
		}
		var rows [][]string
		for _, s := range p.Steps {
			when := "-"
			switch {
			case s.Now:
				when = "now"
			case s.Due:
				when = "waits"
			}
			rows = append(rows, []string{s.Server, s.Region, string(s.State), strconv.FormatUint(s.Epoch, 10), strconv.Itoa(s.Capacity), left(s.Deadline, now), when, string(s.Reason), s.Why})
		}
		if err := show(c.Stdout, *output, p, []string{"SERVER", "REGION", "STATE", "LIFE", "MBIT/S", "LEFT", "WHEN", "REASON", "WHY"}, rows); err != nil {
			return err
		}
		if *output == "table" {
			fmt.Fprintln(c.Stdout)
			rows = nil
			for _, g := range p.Regions {
				rows = append(rows, []string{g.Name, strconv.Itoa(g.Capacity), strconv.Itoa(g.Serving), strconv.Itoa(g.Floor), strconv.Itoa(g.AtOnce)})
			}
			if err := show(c.Stdout, *output, nil, []string{"REGION", "CAPACITY", "SERVING", "FLOOR", "AT ONCE"}, rows); err != nil {
				return err
			}
			fmt.Fprintf(c.Stdout, "\nplan %.16s: %d of %d servers to rebuild, %d now, with release %d\n", p.Inputs, len(p.Targets()), len(p.Steps), len(p.Now()), p.Release)
		}
		return nil
	},
}

// left is the time until a deadline, for people.
func left(deadline, now time.Time) string {
	if deadline.IsZero() {
		return "-"
	}
	return deadline.Sub(now).Round(time.Second).String()
}

// asked is what the operator asks of a plan.
type asked struct {
	all, retry *bool
	lost       []string
}

func askedFlags(fs *flag.FlagSet) *asked {
	a := &asked{
		all:   fs.Bool("all", false, "rebuild every server now, not only those near their deadline"),
		retry: fs.Bool("retry", false, "try quarantined servers again"),
	}
	fs.Func("lost", "`server` that is known to be dead: it counts as no capacity and is rebuilt without a drain; may be repeated", func(s string) error {
		a.lost = append(a.lost, s)
		return nil
	})
	return a
}

func (a *asked) apply(r *plan.Rules) {
	r.All, r.Retry, r.Lost = *a.all, *a.retry, a.lost
}

// refusedPlan adds the mend to refused rules.
func refusedPlan(err error) error {
	var refused *rotate.Refused
	if errors.As(err, &refused) {
		return hint.New(err, "%s", mend(refused.Why))
	}
	return err
}

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strconv"
	"time"

	"mayfly/fleetctl/plan"
	"mayfly/fleetctl/rotate"
	"mayfly/internal/command"
	"mayfly/internal/hint"
)

var planVerb = command.Verb{
	Name:    "plan",
	Args:    "--dir DIR [--all] [--at TIME] [--explain SERVER]",
	Summary: "show which servers rotate would rebuild now, which wait, and why",
	Help: `Plans from the signed policy, the release in use and what the store knows, and changes nothing. Servers are listed in the
order in which they would go: new ones, then the earliest deadline. The same planner decides while ` + "`fleetctl rotate`" + ` runs.

--at shows another moment, as if nothing happened until then and who is heard of now were heard of then. --explain says of one
server why it goes, or why not, rule by rule with the numbers, and when it goes at the latest. --mode shows what a repave, an upgrade, an
emergency or a run for the servers of --only would do; to have it done takes a signed request, to look at it takes none.
Times are shown by the clocks of the window's zone and in UTC. Servers that may meet their deadline before they can go are named.

Rules that cannot keep both max_age and every floor are refused with the arithmetic (exit code 3).

Example:

  fleetctl plan --dir lab --all
  fleetctl plan --dir lab --at 2027-03-28T03:30:00+02:00 --explain se-1`,
	Run: func(ctx context.Context, c *command.Call) error {
		fs := c.Flags()
		dir := dirFlag(fs)
		flags := newPlanFlags(fs)
		at := fs.String("at", "", "plan for this `time`, such as 2027-03-28T03:30:00+02:00, instead of now")
		explain := fs.String("explain", "", "say of this `server` why it goes, or why not")
		output := outputFlag(fs)
		if err := c.Parse(fs); err != nil {
			return err
		}
		if err := errors.Join(noArguments(fs), checkFormat(*output), flags.check()); err != nil {
			return err
		}
		now := time.Now()
		then, err := parseAt(*at, now)
		if err != nil {
			return err
		}
		p, err := state(*dir).planning(ctx, c, now)
		if err != nil {
			return err
		}
		p.at(now, then)
		if err := flags.apply(&p); err != nil {
			return err
		}
		if *explain != "" {
			return p.explain(c, *explain, *output, then)
		}
		made, refused := plan.Make(p.snapshot, p.rules, p.health, then)
		if len(refused) > 0 {
			return refusedPlan(&rotate.Refused{Why: refused})
		}
		shown := shownPlan{Plan: made, Danger: plan.Danger(p.snapshot, p.rules, p.health, then, p.alert)}
		return p.show(c, shown, *output, then)
	},
}

// parseAt reads --at. What was is in the journal: a plan for the past would be made up.
func parseAt(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return now, nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return at, command.Usagef("--at %q: write date, time and offset, for example 2027-03-28T03:30:00+02:00", text)
	}
	if at.Before(now.Add(-time.Minute)) {
		return at, command.Usagef("--at %s has passed: what happened then is in `fleetctl status` and the journal", text)
	}
	return at, nil
}

// shownPlan is a plan with what is shown beside it.
type shownPlan struct {
	plan.Plan
	Danger []plan.Warning `json:"danger,omitempty"` // servers that may meet their deadline
}

func (p planning) show(c *command.Call, shown shownPlan, output string, now time.Time) error {
	header := []string{"SERVER", "REGION", "STATE", "LIFE", "MBIT/S", "LEFT", "WHEN", "REASON", "WHY"}
	if shown.Train != nil {
		header = slices.Insert(header, 6, "BOOTS")
	}
	var rows [][]string
	for _, s := range shown.Steps {
		when := "-"
		switch {
		case s.Now:
			when = "now"
		case s.Due:
			when = "waits"
		}
		row := []string{s.Server, s.Region, string(s.State), strconv.FormatUint(s.Epoch, 10), strconv.Itoa(s.Capacity), left(s.Deadline, now), when, string(s.Reason), s.Why}
		if shown.Train != nil {
			row = slices.Insert(row, 6, strconv.FormatUint(s.Release, 10))
		}
		rows = append(rows, row)
	}
	if err := show(c.Stdout, output, shown, header, rows); err != nil {
		return err
	}
	for _, w := range shown.Danger {
		fmt.Fprintf(c.Stderr, "fleetctl: warning: %s of region %s may meet its deadline at %s, in %s: %s: %s\n", w.Server, w.Region,
			clock(w.Deadline, p.zone(w.Region)), time.Duration(w.Left)*time.Second, w.Reason, visible(w.Why))
	}
	if output != "table" {
		return nil
	}
	fmt.Fprintln(c.Stdout)
	rows = nil
	for _, g := range shown.Regions {
		begins := "always"
		switch {
		case !g.Open:
			begins = "closed until " + clock(g.Opens, p.zone(g.Name))
		case p.windowed(g.Name):
			begins = "open"
		}
		rows = append(rows, []string{g.Name, strconv.Itoa(g.Capacity), strconv.Itoa(g.Serving), strconv.Itoa(g.Floor), strconv.Itoa(g.AtOnce), (time.Duration(g.Lead) * time.Second).String(), begins})
	}
	if err := show(c.Stdout, output, nil, []string{"REGION", "CAPACITY", "SERVING", "FLOOR", "AT ONCE", "LEAD", "WINDOWS"}, rows); err != nil {
		return err
	}
	if t := shown.Train; t != nil {
		fmt.Fprintf(c.Stdout, "\ntrain: release %d after %d, stage %s (%d of %d), reaches %d of %d servers; %d of %d boots failed, so between %.1f %% and %.1f %% do; %s: %s\n",
			t.Release, t.From, t.Stage, t.Number, t.Stages, t.Reach, t.Servers, t.Failed, t.Attempts, 100*t.Lower, 100*t.Upper, t.Verdict, t.Why)
	}
	if shown.Paused {
		fmt.Fprintln(c.Stdout, "\npaused: nothing begins until `fleetctl resume`")
	}
	fmt.Fprintf(c.Stdout, "\nplan %.16s: %d of %d servers to rebuild, %d now, with release %d; to rotate by this plan and no other: --plan %.16s\n", shown.Inputs, len(shown.Targets()), len(shown.Steps), len(shown.Now()), shown.Release, rotate.Grounds(shown.Plan))
	return nil
}

// explain says why one server goes, or why not.
func (p planning) explain(c *command.Call, server, output string, now time.Time) error {
	if err := p.known(server); err != nil {
		return err
	}
	x, refused, ok := plan.Explain(p.snapshot, p.rules, p.health, now, server)
	if len(refused) > 0 || !ok {
		return refusedPlan(&rotate.Refused{Why: refused})
	}
	if output == "json" {
		return show(c.Stdout, output, x, nil, nil)
	}
	zone := p.zone(x.Step.Region)
	verdict := "does not go"
	switch {
	case x.Step.Now:
		verdict = "goes now"
	case x.Step.Due:
		verdict = "is due, and waits"
	}
	fmt.Fprintf(c.Stdout, "%s %s: %s\n%s\n", server, verdict, x.Step.Reason, visible(x.Step.Why))
	for _, line := range x.Rules {
		fmt.Fprintf(c.Stdout, "  %s\n", visible(line))
	}
	for _, t := range []struct {
		what string
		at   time.Time
	}{{"deadline", x.Step.Deadline}, {"due from", x.Early}, {"window opens", x.Opens}, {"at the latest", x.Late}} {
		if !t.at.IsZero() {
			fmt.Fprintf(c.Stdout, "%-14s %s\n", t.what+":", clock(t.at, zone))
		}
	}
	return nil
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
	all, retry, upgrade, emergency *bool
	lost, only                     []string
}

func askedFlags(fs *flag.FlagSet) *asked {
	a := &asked{
		all:   fs.Bool("all", false, "rebuild every server now, not only those near their deadline"),
		retry: fs.Bool("retry", false, "try quarantined servers again"),

		upgrade:   fs.Bool("upgrade", false, "rebuild every server that does not run the release in use, as far as its train has come"),
		emergency: fs.Bool("emergency", false, "rebuild every server at once, over floors, windows, caps, rates and the train; takes two people"),
	}
	fs.Func("lost", "`server` that is known to be dead: it counts as no capacity and is rebuilt without a drain; may be repeated", func(s string) error {
		a.lost = append(a.lost, s)
		return nil
	})
	return a
}

func (a *asked) apply(r *plan.Rules) {
	r.All, r.Retry, r.Lost, r.Only = *a.all, *a.retry, a.lost, a.only
	switch {
	case *a.emergency:
		r.Mode = plan.Emergency
	case *a.upgrade:
		r.Mode = plan.Upgrade
	case *a.all:
		r.Mode = plan.Everyone
	case len(a.only) > 0:
		r.Mode = plan.Single
	}
}

// refusedPlan adds the mend to refused rules.
func refusedPlan(err error) error {
	var refused *rotate.Refused
	if errors.As(err, &refused) {
		return hint.New(err, "%s", mend(refused.Why))
	}
	return err
}

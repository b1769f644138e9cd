package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"

	"mayfly/fleetctl/plan"
	"mayfly/fleetctl/plan/simulate"
	"mayfly/fleetctl/rotate"
	"mayfly/internal/command"
	"mayfly/internal/durable"
	"mayfly/inventory"
	"mayfly/policies"
)

// Bounds of a simulation.
const (
	maxSimulatedDays = 3650
	// longSimulation, in days of one server, is told of while it runs.
	longSimulation = 100_000
	progressEvery  = time.Second
)

var simulateVerb = command.Verb{
	Name:    "simulate",
	Args:    "--dir DIR [--days 30] [--seed N] [--failures WHAT] [--svg FILE]",
	Summary: "run the rotation rules over days on a virtual clock, with failures",
	Help: `Reads DIR/fleet.toml and DIR/policy.toml, as ` + "`policy check`" + ` does, and lets the planner that runs the fleet run one of that shape on a virtual
clock: servers of evenly spread ages at first, failures drawn from the seed. The same files, seed and --from give the same bytes. It shows the least
capacity of each region against its floor, the oldest server that served, and the way of releases that --release brings on.

--failures is none, some (the default), many, or a list such as slow=0.05,failed=0.02,lying=0.01,steps=2,crashes=3,away=1h,mend=24h,boot=4m:
shares of boots that are as slow as the rules allow, that fail, that a BMC lies about; how often the controller's clock steps and the
controller is away, for how long; how long a quarantined server waits for a person; how long a usual boot takes.

--release AFTER[=SHARE] brings a release into use after that time, of whose boots that share fails; it may be repeated.

A planned removal that broke a floor, or a server that met its deadline, is exit code 1. Rules that cannot be kept are refused (3).

Example:

  fleetctl simulate --dir lab --days 30 --seed 7 --failures many --release 48h=0.3 --svg month.svg`,
	Run: func(ctx context.Context, c *command.Call) error {
		fs := c.Flags()
		dir := dirFlag(fs)
		days := fs.Int("days", 30, "`days` to simulate")
		seed := fs.Uint64("seed", 1, "`number` from which failures are drawn")
		from := fs.String("from", "", "begin at this `time` instead of now: two runs that begin at the same time are the same")
		svg := fs.String("svg", "", "write the chart to this `file` as well")
		failures := someFailures
		fs.Func("failures", "`what` fails: none, some, many, or a list", func(s string) (err error) {
			failures, err = parseFailures(s)
			return err
		})
		var releases []simulate.Release
		fs.Func("release", "`AFTER[=SHARE]`: a release comes into use, of whose boots that share fails; may be repeated", func(s string) error {
			r, err := parseComing(s)
			r.Version = uint64(len(releases)) + 2
			releases = append(releases, r)
			return err
		})
		output := outputFlag(fs)
		if err := c.Parse(fs); err != nil {
			return err
		}
		if err := errors.Join(noArguments(fs), checkFormat(*output)); err != nil {
			return err
		}
		if *days < 1 || *days > maxSimulatedDays {
			return command.Usagef("--days %d: 1 to %d", *days, maxSimulatedDays)
		}
		begin, err := simulatedFrom(*from)
		if err != nil {
			return err
		}
		f, p, err := state(*dir).checked(time.Now())
		if err != nil {
			return err
		}
		if err := needsController(f); err != nil {
			return err
		}
		r, err := runSimulation(ctx, c.Stderr, simulate.Config{
			Snapshot: fresh(f, p, begin), Rules: rotate.Rules(f, p.Rotation, nil), Start: begin, Days: *days, Seed: *seed, Failures: failures, Releases: releases,
		})
		if err != nil {
			return err
		}
		if *svg != "" {
			if err := durable.WriteFile(*svg, r.SVG(), 0o644); err != nil {
				return fmt.Errorf("writing the chart: %w", err)
			}
		}
		if *output == "json" {
			err = show(c.Stdout, *output, r, nil, nil)
		} else {
			err = showSimulation(c.Stdout, r)
		}
		if err == nil && (r.Broken > 0 || r.Passed > 0) {
			err = fmt.Errorf("the promises did not hold: %d removals broke a floor, %d servers met their deadline", r.Broken, r.Passed)
		}
		return err
	},
}

// simulatedFrom reads --from; without it the simulation begins now, at a whole minute.
func simulatedFrom(text string) (time.Time, error) {
	if text == "" {
		return time.Now().UTC().Truncate(time.Minute), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return at, command.Usagef("--from %q: write date, time and offset, for example 2027-03-27T00:00:00Z", text)
	}
	return at.UTC(), nil
}

// fresh is a whole fleet of servers whose ages are spread evenly over the younger half of what the rules allow, each region's by itself: that of a fleet that
// has run for a while.
func fresh(f inventory.Fleet, p policies.Policy, now time.Time) plan.Snapshot {
	s := rotate.Whole(f, p.Rotation)
	s.Policy, s.Release, s.Good, s.Zones = p.Version, 1, 1, zones(p.Rotation)
	age := p.Rotation.MaxAge.Std()
	of, count := map[string]int{}, map[string]int{}
	for _, x := range s.Servers {
		of[x.Region]++
	}
	for i := range s.Servers {
		x := &s.Servers[i]
		x.Release = 1
		n := count[x.Region]
		count[x.Region]++
		x.Deadline = now.Add(age - age/2*time.Duration(n)/time.Duration(of[x.Region]))
	}
	return s
}

// runSimulation runs it, and says that it goes on where it takes long: on a terminal in one line, elsewhere in one at the beginning and one at the end.
func runSimulation(ctx context.Context, talk io.Writer, config simulate.Config) (simulate.Result, error) {
	type ended struct {
		simulate.Result
		refused plan.Refusals
	}
	done := make(chan ended, 1)
	began := time.Now()
	go func() {
		r, refused := simulate.Run(config)
		done <- ended{r, refused}
	}()
	what := fmt.Sprintf("simulating %d days of %d servers", config.Days, len(config.Snapshot.Servers))
	long := config.Days*len(config.Snapshot.Servers) >= longSimulation
	f, terminal := talk.(*os.File)
	terminal = terminal && term.IsTerminal(int(f.Fd()))
	if long && !terminal {
		fmt.Fprintf(talk, "fleetctl: %s\n", what)
	}
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	shown := false
	for {
		select {
		case e := <-done:
			if shown {
				fmt.Fprint(talk, "\r\x1b[K")
			}
			if len(e.refused) > 0 {
				return e.Result, refusedPlan(&rotate.Refused{Why: e.refused})
			}
			if long {
				fmt.Fprintf(talk, "fleetctl: %s took %.1f s\n", what, time.Since(began).Seconds())
			}
			return e.Result, nil
		case <-ctx.Done():
			return simulate.Result{}, ctx.Err() // the goroutine ends with the process
		case <-tick.C:
			if terminal {
				shown = true
				fmt.Fprintf(talk, "\r%s: %.0f s", what, time.Since(began).Seconds())
			}
		}
	}
}

// showSimulation prints the chart, and when the last release had arrived.
func showSimulation(w io.Writer, r simulate.Result) error {
	if _, err := fmt.Fprint(w, r.Text()); err != nil || r.Done.IsZero() {
		return err
	}
	_, err := fmt.Fprintf(w, "the last release was good at %s\n", clock(r.Done, time.UTC))
	return err
}

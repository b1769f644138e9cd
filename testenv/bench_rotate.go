package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"mayfly/internal/command"
	"mayfly/inventory"
	"mayfly/inventory/store"
	"mayfly/inventory/store/sqlite"
	"mayfly/testenv/bench"
	"mayfly/testenv/debian"
	"mayfly/testenv/simhost"
)

// ansibleNeed is the peer of bench rotate.
var ansibleNeed = debian.Need{Name: "ansible-playbook", Package: "ansible-core"}

var benchRotateVerb = command.Verb{
	Name:    "bench rotate",
	Args:    "[-o table|json] [--pairs N] [--only PART,…]",
	Summary: "measure rotations of simulated servers, beside the ideal and beside Ansible",
	Help: `A real rotate with its store, journal and clock over simulated servers, whose drains, boots and bakes take a given time. critical: the ideal
schedule's wall time (rounds x work of one server) over ours. ansible: a rolling play of ansible-playbook with the same waits, in alternating
runs; a ratio is the median over the paired runs, and more is better for us. thousand: the cores that one controller takes while a thousand
servers are being rotated.`,
	Run: func(ctx context.Context, c *command.Call) error {
		fs := c.Flags()
		output := fs.String("o", "table", "`form` of the result: table or json")
		pairs := fs.Int("pairs", bench.MinPairs, "`N` runs of each")
		only := fs.String("only", strings.Join(bench.RotateParts, ","), "`PARTS` to measure, separated by commas")
		if err := c.Parse(fs); err != nil {
			return err
		}
		parts := strings.Split(*only, ",")
		if fs.NArg() > 0 || (*output != "table" && *output != "json") || *pairs < 1 ||
			slices.ContainsFunc(parts, func(p string) bool { return !slices.Contains(bench.RotateParts, p) }) {
			return command.Usagef("bench rotate takes -o table or -o json, --pairs of 1 at least, --only of %s", strings.Join(bench.RotateParts, ","))
		}
		ctx, cancel := lifeline(ctx, c.Stdin)
		defer cancel()
		if slices.Contains(parts, "ansible") && len(debian.Missing([]debian.Need{ansibleNeed})) > 0 {
			e, err := newEnvironment()
			if err != nil {
				return err
			}
			if done, err := e.asRoot(ctx, c, "bench rotate", []debian.Need{ansibleNeed}, nil); done || err != nil {
				return err
			}
			defer e.giveCaches(ctx)
		}
		report, err := bench.Rotate(ctx, bench.RotateOptions{Pairs: *pairs, Only: parts, Log: c.Stderr})
		if len(report.Results) == 0 {
			return err
		}
		// What was measured is shown, though a part failed.
		if *output == "json" {
			return errors.Join(json.NewEncoder(c.Stdout).Encode(report), err)
		}
		return errors.Join(report.WriteTable(c.Stdout), err)
	},
}

var partRotationVerb = command.Verb{
	Name: bench.SimulateVerb, Args: "--servers N --width N …", Summary: "(started by bench) rotates simulated servers once",
	Help: "Prints one JSON object: seconds, CPU-seconds of the whole process, servers rebuilt, and how many were out at once.",
	Run: func(ctx context.Context, c *command.Call) error {
		fs := c.Flags()
		var s bench.Simulation
		fs.IntVar(&s.Servers, "servers", 0, "`N` servers")
		fs.IntVar(&s.Regions, "regions", 1, "`N` regions")
		fs.IntVar(&s.Floor, "floor", 0, "`PERCENT` of each region that keeps serving")
		fs.IntVar(&s.Width, "width", 0, "`N` servers out at once")
		fs.DurationVar(&s.Drain, "drain", 0, "`DURATION` of a drain")
		fs.DurationVar(&s.Boot, "boot", 0, "`DURATION` of a boot")
		fs.DurationVar(&s.Bake, "bake", 0, "`DURATION` of the bake")
		if err := parseRequired(c, fs, "servers", "width"); err != nil {
			return err
		}
		if s.Servers < 1 || s.Width < 1 || s.Regions < 1 {
			return command.Usagef("part rotation takes --servers, --regions and --width of 1 at least")
		}
		result, err := rotation(ctx, c, s)
		if err != nil {
			return err
		}
		return json.NewEncoder(c.Stdout).Encode(result)
	},
}

// rotation rotates simulated servers once. What is measured begins after they serve.
func rotation(ctx context.Context, c *command.Call, sim bench.Simulation) (r bench.Simulated, err error) {
	b, err := simhost.Shape{Servers: sim.Servers, Regions: sim.Regions, Floor: sim.Floor, Parallel: sim.Width, Bake: sim.Bake}.Bundle()
	if err != nil {
		return r, err
	}
	dir, err := os.MkdirTemp("", "mayfly-rotation-")
	if err != nil {
		return r, fmt.Errorf("making the simulation's directory: %w", err)
	}
	defer os.RemoveAll(dir)
	s, err := sqlite.Open(ctx, filepath.Join(dir, "store.db"))
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	hosts := simhost.New(func(string, uint64) simhost.Work { return simhost.Work{Drain: sim.Drain, Boot: sim.Boot} })
	if err := simhost.BringUp(ctx, s, b, hosts); err != nil {
		return r, err
	}
	feeding, stop := context.WithCancel(ctx)
	fed := make(chan error, 1)
	go func() { fed <- hosts.Feed(feeding, s) }()
	defer func() { stop(); err = errors.Join(err, <-fed) }()
	controller, err := simhost.Runner(b, s, hosts, c.Stderr)
	if err != nil {
		return r, err
	}
	before, err := spent()
	if err != nil {
		return r, err
	}
	began := time.Now()
	result, err := controller.Run(ctx, simhost.Rules(b))
	if err != nil {
		return r, err
	}
	after, err := spent()
	if err != nil {
		return r, err
	}
	r.Seconds, r.CPU = time.Since(began).Seconds(), (after - before).Seconds()
	for _, x := range result.Servers {
		if x.State == inventory.Serving {
			r.Rebuilt++
		}
	}
	r.Most, err = mostOut(ctx, s)
	return r, err
}

// mostOut replays the events: how many servers were out at once, after all had come up.
func mostOut(ctx context.Context, s store.Store) (most int, err error) {
	out := map[string]bool{}
	up := map[string]bool{}
	for last := int64(0); ; {
		events, err := s.Events(ctx, last)
		if err != nil || len(events) == 0 {
			return most, err
		}
		for _, e := range events {
			last = e.ID
			if e.To == string(inventory.Serving) {
				up[e.Server] = true
				delete(out, e.Server)
			} else if up[e.Server] {
				out[e.Server] = true
			}
			most = max(most, len(out))
		}
	}
}

// spent is the CPU time of this process.
func spent() (time.Duration, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, err
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}

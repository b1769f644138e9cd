package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"mayfly/fleetctl/rotate"
	"mayfly/internal/command"
	"mayfly/inventory"
	"mayfly/inventory/store"
	"mayfly/inventory/store/etcd"
	"mayfly/inventory/store/etcd/etcdtest"
	"mayfly/inventory/store/sqlite"
	"mayfly/policies"
	"mayfly/policies/bundle"
	"mayfly/testenv/bench"
)

var benchPlanVerb = command.Verb{
	Name:    "bench plan",
	Args:    "[-o table|json] [--runs N] [--only PART,…]",
	Summary: "measure the planner on a virtual clock, and the status of a large fleet",
	Help: `sim_3k, sim_100k and sim_1m: 30 simulated days of so many servers with every rotation rule in use, each in a process of its own whose peak
memory is sim_…_mb. patch_3k: an urgent release on 3,000 servers of twelve minutes each under a floor of 90 %, in simulated hours. status_sqlite and
status_etcd: the status of 100,000 servers, read from such a store. Each figure is the median of the runs.`,
	Run: func(ctx context.Context, c *command.Call) error {
		fs := c.Flags()
		output := fs.String("o", "table", "`form` of the result: table or json")
		runs := fs.Int("runs", bench.MinPairs, "`N` runs of each")
		only := fs.String("only", strings.Join(bench.PlanParts, ","), "`PARTS` to measure, separated by commas")
		if err := c.Parse(fs); err != nil {
			return err
		}
		parts := strings.Split(*only, ",")
		if fs.NArg() > 0 || (*output != "table" && *output != "json") || *runs < 1 ||
			slices.ContainsFunc(parts, func(p string) bool { return !slices.Contains(bench.PlanParts, p) }) {
			return command.Usagef("bench plan takes -o table or -o json, --runs of 1 at least, --only of %s", strings.Join(bench.PlanParts, ","))
		}
		ctx, cancel := lifeline(ctx, c.Stdin)
		defer cancel()
		report, err := bench.Plan(ctx, bench.PlanOptions{Runs: *runs, Only: parts, Log: c.Stderr})
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

var partPlanVerb = command.Verb{
	Name: bench.PlanVerb, Args: "--servers N --regions N [--store sqlite|etcd]", Summary: "(started by bench) plans once, or reads a status once",
	Help: "Prints one JSON object: seconds, and what a simulation came to.",
	Run: func(ctx context.Context, c *command.Call) error {
		fs := c.Flags()
		var w bench.PlanWork
		fs.IntVar(&w.Servers, "servers", 0, "`N` servers")
		fs.IntVar(&w.Regions, "regions", 0, "`N` regions; 0: the urgent release")
		fs.StringVar(&w.Store, "store", "", "`KIND` of store whose status is read")
		if err := parseRequired(c, fs, "servers"); err != nil {
			return err
		}
		done, err := bench.PlanDone{}, error(nil)
		if w.Store == "" {
			done, err = w.Simulate()
		} else {
			done.Seconds, err = statusOf(ctx, w)
		}
		if err != nil {
			return err
		}
		return json.NewEncoder(c.Stdout).Encode(done)
	},
}

// statusOf fills a store, and measures how long opening it, reading all servers, counting what serves and writing it down takes.
func statusOf(ctx context.Context, w bench.PlanWork) (seconds float64, err error) {
	dir, err := os.MkdirTemp("", "mayfly-status-")
	if err != nil {
		return 0, fmt.Errorf("making the store's directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	fill, open, end, err := statusStore(ctx, w.Store, dir)
	if err != nil {
		return 0, err
	}
	defer end()
	now := time.Now()
	b, content := largeFleet(w.Servers, w.Regions, now)
	r, in := io.Pipe()
	go func() { in.CloseWithError(content.Write(in)) }()
	if err := fill(r); err != nil {
		return 0, fmt.Errorf("filling the store: %w", err)
	}
	began := time.Now()
	s, err := open()
	if err != nil {
		return 0, err
	}
	servers, err := s.Servers(ctx)
	if err != nil {
		return 0, errors.Join(err, s.Close())
	}
	snapshot, heard := rotate.Snapshot(b, 7, servers)
	serving := map[string]int{}
	for _, x := range snapshot.Servers {
		if x.Serves(heard, now) {
			serving[x.Region] += x.Capacity
		}
	}
	if err := json.NewEncoder(io.Discard).Encode(snapshot); err != nil {
		return 0, errors.Join(err, s.Close())
	}
	seconds = time.Since(began).Seconds()
	if len(serving) != w.Regions {
		err = fmt.Errorf("%d of %d regions serve", len(serving), w.Regions)
	}
	return seconds, errors.Join(err, s.Close())
}

// statusStore makes an empty store: how it is filled, opened for reading, and ended.
func statusStore(ctx context.Context, kind, dir string) (fill func(io.Reader) error, open func() (store.Store, error), end func(), err error) {
	if kind == "etcd" {
		cluster, err := etcdtest.Start(ctx, dir, 1)
		if err != nil {
			return nil, nil, nil, err
		}
		at := cluster.Address("bench")
		fill = func(r io.Reader) error {
			s, err := etcd.Open(ctx, dir, at)
			if err != nil {
				return err
			}
			return errors.Join(s.Import(ctx, r), s.Close())
		}
		return fill, func() (store.Store, error) { return etcd.OpenReadOnly(ctx, dir, at) }, cluster.Stop, nil
	}
	if kind != "sqlite" {
		return nil, nil, nil, command.Usagef("--store %q: it is sqlite or etcd", kind)
	}
	path := filepath.Join(dir, "store.db")
	fill = func(r io.Reader) error {
		s, err := sqlite.Open(ctx, path)
		if err != nil {
			return err
		}
		return errors.Join(s.Import(ctx, r), s.Close())
	}
	return fill, func() (store.Store, error) { return sqlite.OpenReadOnly(ctx, path) }, func() {}, nil
}

// largeFleet is a fleet in which every server serves and was just heard of, and what a store has of it.
func largeFleet(servers, regions int, now time.Time) (*bundle.Bundle, *store.Content) {
	f, c := inventory.Fleet{Name: "large", Domain: "large.test"}, &store.Content{}
	for g := range regions {
		name := fmt.Sprintf("r%04d", g)
		f.Regions = append(f.Regions, inventory.Region{Name: name, Floor: inventory.Floor{Percent: 90}})
		f.Racks = append(f.Racks, inventory.Rack{Name: name, Region: name})
	}
	for i := range servers {
		x := inventory.Server{Name: fmt.Sprintf("s%07d", i), Rack: f.Racks[i%regions].Name, Role: inventory.RoleVPN, Capacity: 1000,
			Address: netip.PrefixFrom(netip.AddrFrom4([4]byte{172, byte(16 + i>>16), byte(i >> 8), byte(i)}), 12)}
		f.Servers = append(f.Servers, x)
		boot := fmt.Sprintf("%032x", i)
		s := store.Record{Server: store.Server{Name: x.Name, State: inventory.Serving, Epoch: 3, Since: now, Cause: "baked", Release: "7", BootID: boot, TLSKey: boot + boot,
			HostKey: "ssh-ed25519 " + boot, TunnelKey: boot, Evidence: "attested", BootedAt: now.Add(-time.Hour), JoinedAt: now.Add(-time.Hour), Deadline: now.Add(6 * time.Hour)},
			Report: []byte(`{"boot_id":"` + boot + `","ready":true}`), ReportAt: now}
		c.Servers = append(c.Servers, s)
	}
	p := policies.Policy{Rotation: policies.Rotation{MaxAge: policies.Duration(7 * time.Hour)}}
	return &bundle.Bundle{Fleet: f.Name, Version: 1, Inventory: f, Policy: p}, c
}

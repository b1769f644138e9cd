package controllers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"mayfly/fleetctl/rotate"
	"mayfly/internal/command"
	"mayfly/inventory"
	"mayfly/inventory/store"
	"mayfly/inventory/store/keeper"
	"mayfly/testenv/simhost"
)

// The fleet, the same in every process.
const (
	servers = 144
	regions = 2
	floor   = 75 // percent
	width   = 8
	ttl     = 6 * time.Second // of claims: rotate.ClaimTTL, but for a test that waits for it

	drainWork = 100 * time.Millisecond
	bootWork  = 800 * time.Millisecond
	bakeTime  = 300 * time.Millisecond
)

func shape() simhost.Shape {
	return simhost.Shape{Servers: servers, Regions: regions, Floor: floor, Parallel: width, Bake: bakeTime, Retries: 3}
}

// Task is what a process does.
type Task struct {
	Do     string // "hosts" or "rotate"
	Dir    string // with etcd's certificates
	Store  string // its address
	Socket string // of the machines' power
	Name   string // of the controller
}

// Found is what the hosts' process prints when it ends: the machines' own count, and the store's.
type Found struct {
	Boots    map[string]map[uint64]int
	Servers  []store.Server
	Outcomes []store.Outcome
	Events   []store.Event
	Open     bool // a run is open
}

// Child does a task until it is done or ctx ends.
func Child(ctx context.Context, t Task, stdout, stderr io.Writer) error {
	address, err := inventory.ParseStoreAddress(t.Store)
	if err != nil {
		return err
	}
	b, err := shape().Bundle()
	if err != nil {
		return err
	}
	s, err := keeper.Open(ctx, t.Dir, address)
	if err != nil {
		return err
	}
	defer s.Close()
	switch t.Do {
	case "hosts":
		return hosts(ctx, t, s, stdout, stderr)
	case "rotate":
		r, err := simhost.Runner(b, s, simhost.Remote{Socket: t.Socket}, stderr)
		if err != nil {
			return err
		}
		r.Holder, r.TTL, r.Poll = rotate.Holder(t.Name), ttl, 100*time.Millisecond
		if done, err := over(ctx, s); err != nil {
			return err
		} else if done {
			fmt.Fprintf(stdout, "%s: all is done\n", t.Name)
			return nil
		}
		result, err := r.Run(ctx, simhost.Rules(b))
		fmt.Fprintf(stdout, "%s: %s, %d servers\n", t.Name, result.Result, len(result.Servers))
		return err
	}
	return command.Usagef("there is no task %q", t.Do)
}

// over reports whether the one run of the test has ended: who comes later begins no other.
func over(ctx context.Context, s store.Store) (bool, error) {
	_, open, err := s.OpenRun(ctx)
	if err != nil || open {
		return false, err
	}
	_, was, err := s.LastRun(ctx)
	return was, err
}

// hosts is the machines' process, and the controller's serve: it feeds what they say into the store.
func hosts(ctx context.Context, t Task, s store.Store, stdout, stderr io.Writer) error {
	b, err := shape().Bundle()
	if err != nil {
		return err
	}
	h := simhost.New(func(string, uint64) simhost.Work { return simhost.Work{Drain: drainWork, Boot: bootWork} })
	if err := simhost.BringUp(ctx, s, b, h); err != nil {
		return err
	}
	ended := make(chan error, 2)
	go func() { ended <- h.Serve(ctx, t.Socket) }()
	go func() { ended <- h.Feed(ctx, s) }()
	fmt.Fprintln(stderr, "hosts: ready")
	if err := errors.Join(<-ended, <-ended); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	f := Found{Boots: map[string]map[uint64]int{}}
	for _, x := range b.Inventory.Rebuilt() {
		f.Boots[x.Name] = h.Boots(x.Name)
	}
	if f.Servers, err = s.Servers(ctx); err != nil {
		return err
	}
	if f.Outcomes, err = s.Outcomes(ctx, "", time.Time{}); err != nil {
		return err
	}
	for last := int64(0); ; {
		some, err := s.Events(ctx, last)
		if err != nil {
			return err
		}
		if len(some) == 0 {
			break
		}
		f.Events, last = append(f.Events, some...), some[len(some)-1].ID
	}
	if _, f.Open, err = s.OpenRun(ctx); err != nil {
		return err
	}
	return json.NewEncoder(stdout).Encode(f)
}

package simhost

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"testing"
	"time"

	"mayfly/fleetctl/rotate"
	"mayfly/inventory"
	"mayfly/inventory/store/sqlite"
)

// TestRotation: a real rotate over simulated hosts, which are asked directly and over their socket, rebuilds each once.
func TestRotation(t *testing.T) {
	for _, remote := range []bool{false, true} {
		b, err := Shape{Servers: 12, Regions: 2, Floor: 50, Parallel: 6, Bake: 10 * time.Millisecond}.Bundle()
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		s, err := sqlite.Open(t.Context(), filepath.Join(dir, "store.db"))
		if err != nil {
			t.Fatal(err)
		}
		h := New(func(string, uint64) Work { return Work{Drain: 5 * time.Millisecond, Boot: 10 * time.Millisecond} })
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 2)
		go func() { ended <- h.Feed(ctx, s) }()
		socket := filepath.Join(dir, "power")
		go func() { ended <- h.Serve(ctx, socket) }()
		if err := BringUp(ctx, s, b, h); err != nil {
			t.Fatal(err)
		}
		var machines rotate.Machines = h
		if remote {
			machines = Remote{socket}
		}
		r, err := Runner(b, s, machines, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		r.Poll = 5 * time.Millisecond
		rules := Rules(b)
		result, err := r.Run(ctx, rules)
		if err != nil || result.Result != "done" || len(result.Servers) != 12 {
			t.Errorf("remote %v: got %s of %d, %v, want 12 done", remote, result.Result, len(result.Servers), err)
		}
		for _, x := range b.Inventory.Rebuilt() {
			if boots := h.Boots(x.Name); len(boots) != 2 || boots[1] != 1 || boots[2] != 1 {
				t.Errorf("remote %v: %s: got boots %v, want one of each of two lives", remote, x.Name, boots)
			}
		}
		if n := h.On(); n != 12 {
			t.Errorf("remote %v: got %d machines on, want 12", remote, n)
		}
		stop()
		if err := errors.Join(<-ended, <-ended, s.Close()); err != nil {
			t.Error(err)
		}
	}
}

// TestFaults: what a test has go wrong is what the rotation finds.
func TestFaults(t *testing.T) {
	b, err := Shape{Servers: 3, Regions: 1, Floor: 30, Parallel: 3, Bake: time.Millisecond, BootLimit: 10 * time.Second}.Bundle()
	if err != nil {
		t.Fatal(err)
	}
	s, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	h := New(func(string, uint64) Work { return Work{Boot: time.Millisecond} })
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.Feed(ctx, s) }()
	if err := BringUp(ctx, s, b, h); err != nil {
		t.Fatal(err)
	}
	h.Fail("r00-0000", func(uint64) Fault { return Fault{Reason: "release_unsigned"} })
	h.Fail("r00-0001", func(uint64) Fault { return Fault{Stays: true} })
	r, err := Runner(b, s, h, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	r.Poll = 5 * time.Millisecond
	r.Stuck = time.Second // the third may not go while two are out
	rules := Rules(b)
	_, runErr := r.Run(ctx, rules)
	if runErr == nil {
		t.Error("got nil, want what failed")
	}
	for name, want := range map[string]inventory.State{"r00-0000": inventory.Quarantined, "r00-0001": inventory.Quarantined} {
		x, err := s.Server(ctx, name)
		if err != nil || x.State != want {
			t.Errorf("%s: got %s (%s), %v, want %s", name, x.State, x.Cause, err, want)
		}
	}
	stop()
	if err := errors.Join(<-ended, s.Close()); err != nil {
		t.Error(err)
	}
}

func TestShapeRefuses(t *testing.T) {
	for _, s := range []Shape{{}, {Servers: 5, Regions: 2}, {Servers: maxServers + 1, Regions: 1}} {
		if _, err := s.Bundle(); err == nil {
			t.Errorf("%+v: got nil, want an error", s)
		}
	}
}

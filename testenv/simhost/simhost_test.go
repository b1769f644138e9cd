package simhost

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"strings"
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

// TestFaults: what a test has go wrong is what the rotation finds, by its first cause.
func TestFaults(t *testing.T) {
	b, err := Shape{Servers: 6, Regions: 1, Floor: 0, Parallel: 6, Bake: time.Millisecond, BootLimit: 30 * time.Second, Retries: 1}.Bundle()
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
	faults := []struct {
		server string
		fault  func(epoch uint64) Fault
		cause  string // "": it serves
		boots  int    // of new lives
	}{
		{"r00-0000", func(epoch uint64) Fault {
			return Fault{Reason: map[uint64]string{2: "release_unsigned", 3: "fetch_failed"}[epoch]}
		}, "release_unsigned", 2},
		{"r00-0001", func(uint64) Fault { return Fault{Stays: true} }, "power_off", 0},
		{"r00-0002", func(uint64) Fault { return Fault{Never: true} }, "not_restarted", 2},
		{"r00-0003", func(epoch uint64) Fault { return Fault{Never: epoch == 2} }, "", 2},
		{"r00-0004", func(uint64) Fault { return Fault{Silent: true} }, "boot_limit", 2},
		{"r00-0005", func(uint64) Fault { return Fault{} }, "", 1},
	}
	for _, f := range faults {
		h.Fail(f.server, f.fault)
	}
	r, err := Runner(b, s, h, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	r.Poll = 5 * time.Millisecond
	if _, err := r.Run(ctx, Rules(b)); err == nil {
		t.Error("got nil, want what failed")
	}
	outcomes, err := s.Outcomes(ctx, "", time.Time{})
	if err != nil || len(outcomes) != len(faults) {
		t.Errorf("got %d ends of rotations, %v, want %d", len(outcomes), err, len(faults))
	}
	for _, f := range faults {
		x, err := s.Server(ctx, f.server)
		want := inventory.Serving
		if f.cause != "" {
			want = inventory.Quarantined
		}
		if err != nil || x.State != want || f.cause != "" && !strings.Contains(x.Cause, f.cause) {
			t.Errorf("%s: got %s (%s), %v, want %s, %q", f.server, x.State, x.Cause, err, want, f.cause)
		}
		boots := h.Boots(f.server)
		if len(boots)-1 != f.boots {
			t.Errorf("%s: got boots %v, want %d beside the first", f.server, boots, f.boots)
		}
		for epoch, n := range boots {
			if n != 1 {
				t.Errorf("%s: life %d was booted %d times", f.server, epoch, n)
			}
		}
	}
	stop()
	if err := errors.Join(<-ended, s.Close()); err != nil {
		t.Error(err)
	}
}

// TestTwoControllers: two runners on one store do everything once.
func TestTwoControllers(t *testing.T) {
	b, err := Shape{Servers: 24, Regions: 2, Floor: 50, Parallel: 6, Bake: time.Millisecond}.Bundle()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "store.db")
	s, err := sqlite.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	h := New(func(string, uint64) Work { return Work{Drain: 5 * time.Millisecond, Boot: 20 * time.Millisecond} })
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.Feed(ctx, s) }()
	if err := BringUp(ctx, s, b, h); err != nil {
		t.Fatal(err)
	}
	// Whoever comes after the other's end begins a run of its own: that is no fault.
	runs := make(chan error, 2)
	for range 2 {
		own, err := sqlite.Open(ctx, path)
		if err != nil {
			t.Fatal(err)
		}
		r, err := Runner(b, own, h, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		r.Poll = 5 * time.Millisecond
		go func() {
			_, err := r.Run(ctx, Rules(b))
			runs <- errors.Join(err, own.Close())
		}()
	}
	if err := errors.Join(<-runs, <-runs); err != nil {
		t.Error(err)
	}
	outcomes, err := s.Outcomes(ctx, "", time.Time{})
	if err != nil || len(outcomes)%24 != 0 || len(outcomes) == 0 {
		t.Errorf("got %d ends of rotations, %v, want 24 of one run, or of two", len(outcomes), err)
	}
	for _, x := range b.Inventory.Rebuilt() {
		for epoch, n := range h.Boots(x.Name) {
			if n != 1 {
				t.Errorf("%s: life %d was booted %d times", x.Name, epoch, n)
			}
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

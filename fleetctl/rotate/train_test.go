package rotate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"mayfly/fleetctl/plan"
	"mayfly/inventory"
	"mayfly/inventory/store"
	"mayfly/policies"
	"mayfly/policies/bundle"
	"mayfly/rebuild/release"
)

// trainBundle is a fleet with an internal ring of two, and rules for trains.
func trainBundle() *bundle.Bundle {
	b := testBundle("nl-1", "nl-2", "nl-3", "nl-4", "nl-5", "se-1", "se-2")
	for i := range 2 {
		b.Inventory.Servers[i].Ring = inventory.RingInternal
	}
	b.Policy.Rotation.Train = policies.Train{Canaries: 1, Steps: []int{50, 100}, Bake: policies.Duration(time.Millisecond), MaxErrors: 0.05, Confidence: 0.95}
	return b
}

// onTrain has release 8 in use on a fleet whose good release is 7. It returns the runner and what it boots.
func onTrain(t *testing.T, dir string, b *bundle.Bundle) (*Runner, *[]string) {
	t.Helper()
	r := testRunner(t, dir, b)
	t.Cleanup(func() {
		if err := r.Store.Close(); err != nil {
			t.Error(err)
		}
	})
	now := time.Now()
	if err := errors.Join(r.Store.UseRelease(t.Context(), store.Use{Version: 7, Digest: "7", At: now.Add(-time.Hour)}),
		r.Store.MarkRelease(t.Context(), store.Mark{Version: 7, Digest: "7", Mark: store.Good, At: now}),
		r.Store.UseRelease(t.Context(), store.Use{Version: 8, Digest: "8", At: now})); err != nil {
		t.Fatal(err)
	}
	booted := new([]string)
	r.Machines = bootedWith{fakeMachines{dir}, new(sync.Mutex), booted}
	at := func(v uint64) Release {
		return Release{Statement: release.Statement{Version: v}, Data: fmt.Append(nil, v), Path: fmt.Sprintf("/releases/%d/", v)}
	}
	r.Release = at(8)
	r.Releases = func(v uint64) (Release, error) { return at(v), nil }
	return r, booted
}

func upgrade(b *bundle.Bundle) plan.Rules {
	r := Rules(b.Inventory, b.Policy.Rotation, nil)
	r.Mode = plan.Upgrade
	return r
}

func markOf(ctx context.Context, t *testing.T, s store.Store, version uint64) store.Mark {
	t.Helper()
	marks, err := s.Marks(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range marks {
		if m.Version == version {
			return m
		}
	}
	return store.Mark{}
}

// TestBadTrain: a release that fails in the internal ring stops there and is bad for good, what runs it goes back, and nobody else ever gets it.
func TestBadTrain(t *testing.T) {
	b := trainBundle()
	dir, w := serving(t, b)
	r, booted := onTrain(t, dir, b)
	w.mu.Lock()
	w.deny["nl-2 8"] = "release_unsigned"
	w.mu.Unlock()
	r.Stuck = 50 * time.Millisecond
	result, err := r.Run(t.Context(), upgrade(b))
	if err == nil {
		t.Errorf("got %+v, want an error", result)
	}
	m := markOf(t.Context(), t, r.Store, 8)
	if m.Mark != store.Bad || !strings.Contains(m.Why, "2") {
		t.Errorf("got %+v, want release 8 bad", m)
	}
	for _, x := range *booted {
		if name, version, _ := strings.Cut(x, " "); version == "8" && name != "nl-1" && name != "nl-2" {
			t.Errorf("%s got the bad release: %q", name, *booted)
		}
	}
	s, err := r.Store.Server(t.Context(), "nl-1")
	if err != nil || s.State != inventory.Serving || s.Release != "7" || !slices.Contains(*booted, "nl-1 7") {
		t.Errorf("nl-1 is %s with release %s, %v, want it back on 7: %q", s.State, s.Release, err, *booted)
	}
	if err := r.Store.UseRelease(t.Context(), store.Use{Version: 8, Digest: "8", At: time.Now()}); !errors.Is(err, store.ErrBad) {
		t.Errorf("it may be used again: %v", err)
	}
}

// TestPowerIsNoRelease: what fails before a machine was switched on is counted for no release.
func TestPowerIsNoRelease(t *testing.T) {
	for _, check := range needs {
		cause := judge(facts{}, check.check, "as the test says").String()
		if got, want := ofRelease(cause), check.check != CheckPower; got != want {
			t.Errorf("%s counts: %v, want %v", cause, got, want)
		}
	}
}

// TestTrain: a release goes from the internal ring over the canary and the steps to everybody, and is good then.
func TestTrain(t *testing.T) {
	b := trainBundle()
	b.Policy.Rotation.Train.MaxErrors = 0.5
	dir, _ := serving(t, b)
	r, booted := onTrain(t, dir, b)
	end := time.Now().Add(time.Minute)
	for markOf(t.Context(), t, r.Store, 8).Mark != store.Good {
		if _, err := r.Run(t.Context(), upgrade(b)); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(end) {
			t.Fatalf("the train does not end: %q, %+v", *booted, markOf(t.Context(), t, r.Store, 8))
		}
	}
	if n := len(*booted); n != 7 {
		t.Fatalf("%d boots, want each server once: %q", n, *booted)
	}
	ring := slices.Sorted(slices.Values((*booted)[:2]))
	if !slices.Equal(ring, []string{"nl-1 8", "nl-2 8"}) {
		t.Errorf("got %q first, want the internal ring", ring)
	}
}

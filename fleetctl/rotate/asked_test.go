package rotate

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"mayfly/fleetctl/plan"
	"mayfly/inventory"
	"mayfly/inventory/store"
	"mayfly/rebuild/power"
	"mayfly/rebuild/release"
)

// TestPauseAndCancel: what people ask for while a run goes on holds at once: the server under way ends, the other one does not leave. A pause leaves the run
// open for later; a cancelled one is over.
func TestPauseAndCancel(t *testing.T) {
	for _, how := range []string{paused, cancelled} {
		t.Run(how, func(t *testing.T) {
			b := testBundle("se-1", "se-2")
			dir, w := serving(t, b)
			r := testRunner(t, dir, b)
			defer r.Store.Close()
			r.point = func(name string) {
				if name != "boot effect" {
					return
				}
				open, _, err := w.store.OpenRun(t.Context())
				if err == nil && how == paused {
					err = w.store.SetPause(t.Context(), store.Pause{On: true, By: "ana", Why: "as the test says", At: time.Now()})
				} else if err == nil {
					err = w.store.CancelRun(t.Context(), open.ID, "ana", time.Now())
				}
				if err != nil {
					t.Error(err)
				}
			}
			result, err := r.Run(t.Context(), all(b))
			if err != nil || result.Result != how || !strings.Contains(result.Why, "ana") {
				t.Fatalf("got %+v, %v, want %s", result, err, how)
			}
			if n, m := w.boots(t, "se-1"), w.boots(t, "se-2"); n != 2 || m != 1 {
				t.Errorf("se-1 was booted %d times and se-2 %d times, want 2 and 1", n, m)
			}
			if _, open, err := r.Store.OpenRun(t.Context()); err != nil || open != (how == paused) {
				t.Errorf("the run is open: %v, %v", open, err)
			}
			if how == cancelled {
				return
			}
			r.point = nil
			if err := r.Store.SetPause(t.Context(), store.Pause{At: time.Now()}); err != nil {
				t.Fatal(err)
			}
			result, err = r.Run(t.Context(), all(b))
			if err != nil || !result.Resumed || result.Result != "done" || w.boots(t, "se-2") != 2 {
				t.Errorf("resumed: got %+v, %v", result, err)
			}
		})
	}
}

// TestEmergencyTakesLeave: nobody goes over floors because a flag says so.
func TestEmergencyTakesLeave(t *testing.T) {
	b := testBundle("se-1", "se-2")
	dir, w := serving(t, b)
	r := testRunner(t, dir, b)
	defer r.Store.Close()
	rules := Rules(b.Inventory, b.Policy.Rotation, nil)
	rules.Mode = plan.Emergency
	no := errors.New("one person signed")
	for _, tt := range []struct {
		by   func(context.Context, plan.Plan) error
		want func(error) bool
	}{
		{nil, func(err error) bool {
			var refused *Refused
			return errors.As(err, &refused) && refused.Why[0].Code == Unapproved
		}},
		{func(context.Context, plan.Plan) error { return no }, func(err error) bool { return errors.Is(err, no) }},
	} {
		r.Overrides = tt.by
		if result, err := r.Run(t.Context(), rules); !tt.want(err) {
			t.Errorf("got %+v, %v", result, err)
		}
	}
	if n := w.boots(t, "se-1") + w.boots(t, "se-2"); n != 2 {
		t.Errorf("%d boots: something was touched", n)
	}
	r.Overrides = func(context.Context, plan.Plan) error { return nil }
	if result, err := r.Run(t.Context(), rules); err != nil || result.Result != "done" || w.boots(t, "se-1") != 2 {
		t.Errorf("with leave: got %+v, %v", result, err)
	}
}

// TestRestartIsProved: a machine that shows the boot ID of the life before was never off, whatever its BMC says; its rotation does not count.
func TestRestartIsProved(t *testing.T) {
	entries := []store.Entry{{Epoch: 1, Step: stepEnd, Outcome: Done, Detail: "boot-1"}, {Epoch: 2, Step: "off", Outcome: Done, Detail: readBackOff}}
	for _, tt := range []struct {
		name string
		s    store.Server
		off  bool
		want string
	}{
		{"never joined", store.Server{Epoch: 2}, true, ""},
		{"the same boot", store.Server{Epoch: 2, BootID: "boot-1", Evidence: "attested"}, true, ""},
		{"read back", store.Server{Epoch: 2, BootID: "boot-2"}, true, "power:"},
		{"a quote", store.Server{Epoch: 2, BootID: "boot-2", Evidence: "attested"}, false, "quote:"},
		{"another boot", store.Server{Epoch: 2, BootID: "boot-2"}, false, "boot:"},
	} {
		seen := entries[:1]
		if tt.off {
			seen = entries
		}
		if got := proof(seen, tt.s); got != tt.want && (tt.want == "" || !strings.HasPrefix(got, tt.want)) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

// bootedWith notes which release a machine boots.
type bootedWith struct {
	fakeMachines
	mu     *sync.Mutex // guards booted
	booted *[]string
}

type bootedMachine struct {
	Machine
	name   string
	mu     *sync.Mutex // guards booted
	booted *[]string
}

func (m bootedWith) Machine(s inventory.Server) (Machine, error) {
	x, err := m.fakeMachines.Machine(s)
	return bootedMachine{x, s.Name, m.mu, m.booted}, err
}

func (m bootedMachine) On(ctx context.Context, b power.Boot) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	*m.booted = append(*m.booted, m.name+" "+string(b.Statement))
	return m.Machine.On(ctx, b)
}

// TestBadReleaseIsNotBooted: a server gets the newest good release in the place of a bad one; without a good one nothing is touched.
func TestBadReleaseIsNotBooted(t *testing.T) {
	b := testBundle("nl-1")
	dir, w := serving(t, b)
	r := testRunner(t, dir, b)
	defer r.Store.Close()
	var booted []string
	r.Machines = bootedWith{fakeMachines{dir}, new(sync.Mutex), &booted}
	r.Release = Release{Statement: release.Statement{Version: 8}, Data: []byte("8"), Path: "/releases/8/"}
	r.Releases = func(v uint64) (Release, error) {
		return Release{Statement: release.Statement{Version: v}, Data: []byte("7"), Path: "/releases/7/"}, nil
	}
	now := time.Now()
	if err := errors.Join(r.Store.UseRelease(t.Context(), store.Use{Version: 8, Digest: "8", At: now}),
		r.Store.MarkRelease(t.Context(), store.Mark{Version: 8, Digest: "8", Mark: store.Bad, Why: "as the test says", At: now})); err != nil {
		t.Fatal(err)
	}
	if result, err := r.Run(t.Context(), all(b)); err == nil || w.boots(t, "nl-1") != 1 {
		t.Fatalf("without a good one: got %+v, %v, %q", result, err, booted)
	}
	if open, found, err := r.Store.OpenRun(t.Context()); err != nil {
		t.Fatal(err)
	} else if found {
		if err := r.Store.EndRun(t.Context(), open.ID, "test", time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Store.MarkRelease(t.Context(), store.Mark{Version: 7, Digest: "7", Mark: store.Good, At: now}); err != nil {
		t.Fatal(err)
	}
	result, err := r.Run(t.Context(), all(b))
	if err != nil || result.Result != "done" || len(booted) != 1 || booted[0] != "nl-1 7" {
		t.Errorf("got %+v, %v, booted %q, want nl-1 with release 7", result, err, booted)
	}
}

package rotate

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"mayfly/internal/hint"
	"mayfly/inventory"
	"mayfly/inventory/store"
	"mayfly/policies"
)

func TestRun(t *testing.T) {
	b := testBundle("se-1", "se-2", "nl-1")
	dir, w := serving(t, b)
	r := testRunner(t, dir, b)
	defer r.Store.Close()
	result, err := r.Run(t.Context(), all(b))
	if err != nil || result.Result != "done" || len(result.Servers) != 3 {
		t.Fatalf("got %+v, %v", result, err)
	}
	for _, s := range result.Servers {
		if s.State != inventory.Serving || s.Epoch != 2 || s.Release != "7" {
			t.Errorf("got %+v, want it serving in life 2 with release 7", s)
		}
		if n := w.boots(t, s.Name); n != 2 {
			t.Errorf("%s: got %d boots, want 2: one to come up, one for this run", s.Name, n)
		}
	}
	if low := w.lowest["se"]; low < 1000 {
		t.Errorf("region se fell to %d, under its floor of 1000", low)
	}
	// Everything is young now.
	result, err = r.Run(t.Context(), Rules(b.Inventory, b.Policy.Rotation, nil))
	if err != nil || result.Result != "nothing due" {
		t.Errorf("got %+v, %v, want nothing due", result, err)
	}
}

// TestRevoked: a life whose ticket came twice counts as nothing and is rebuilt at once, without a drain; nobody else is touched.
func TestRevoked(t *testing.T) {
	b := testBundle("se-1", "se-2")
	dir, _ := serving(t, b)
	r := testRunner(t, dir, b)
	defer r.Store.Close()
	hash := [32]byte{2}
	if err := r.Store.PutTicket(t.Context(), "se-2", 1, hash, time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []error{nil, store.ErrTicketUsed} {
		if err := r.Store.UseTicket(t.Context(), hash, "se-2", 1, time.Now()); !errors.Is(err, want) {
			t.Fatalf("got %v, want %v", err, want)
		}
	}
	rules := Rules(b.Inventory, b.Policy.Rotation, nil)
	p, err := r.Plan(t.Context(), rules, time.Now())
	if err != nil || p.Regions[0].Serving != 1000 {
		t.Errorf("got %+v, %v, want 1000 of region se serving", p.Regions, err)
	}
	r.point = func(name string) {
		if strings.HasPrefix(name, "drain") {
			t.Errorf("a revoked life was asked to drain (%s)", name)
		}
	}
	result, err := r.Run(t.Context(), rules)
	if err != nil || result.Result != "done" || len(result.Servers) != 1 || result.Servers[0].Name != "se-2" || result.Servers[0].Epoch != 2 {
		t.Errorf("got %+v, %v, want se-2 rebuilt and nothing else", result, err)
	}
}

// TestQuarantine: a server that does not come up is tried once more and kept out with its first cause, and the other server of
// its region, whose removal would break the floor, is not touched.
func TestQuarantine(t *testing.T) {
	for _, c := range []struct {
		name string
		hurt func(w *world)
		want string
	}{
		{"refused", func(w *world) { w.deny["se-1"] = "release_unsigned" }, "boot: release_unsigned: as the test says; not reached: join, attest, services, probe, traffic (console: mayfly-stub: refused"},
		{"silent", func(w *world) { w.dead["se-1"] = true }, "boot: boot_limit: has not joined within 100ms; not reached: join"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := testBundle("se-1", "se-2")
			dir, w := serving(t, b)
			b.Policy.Rotation.BootLimit = policies.Duration(100 * time.Millisecond)
			b.Policy.Rotation.DrainLimit = policies.Duration(time.Millisecond)
			w.mu.Lock()
			c.hurt(w)
			w.mu.Unlock()
			r := testRunner(t, dir, b)
			r.Stuck = 50 * time.Millisecond
			defer r.Store.Close()
			rules := all(b)
			result, err := r.Run(t.Context(), rules)
			if err == nil || !strings.Contains(err.Error(), "quarantined") || hint.Of(err) == "" {
				t.Fatalf("got %+v, %v, want an error with a hint", result, err)
			}
			s, err := r.Store.Server(t.Context(), "se-1")
			if err != nil || s.State != inventory.Quarantined || !strings.Contains(s.Cause, c.want) {
				t.Errorf("got %s (%s), %v, want quarantined with %q", s.State, s.Cause, err, c.want)
			}
			if n := w.boots(t, "se-1"); n != 3 {
				t.Errorf("got %d boots, want 3: one to come up, one, one more", n)
			}
			if w.machine(t, "se-1").On {
				t.Error("a quarantined machine is on")
			}
			if n := w.boots(t, "se-2"); n != 1 {
				t.Errorf("se-2 was touched: %d boots, want 1", n)
			}
			if s, err := r.Store.Server(t.Context(), "se-2"); err != nil || s.State != inventory.Serving {
				t.Errorf("got se-2 %s, %v, want serving", s.State, err)
			}
			// Mended, it comes back when somebody asks.
			w.mu.Lock()
			clear(w.deny)
			clear(w.dead)
			w.mu.Unlock()
			b.Policy.Rotation.BootLimit = policies.Duration(30 * time.Second)
			rules = Rules(b.Inventory, b.Policy.Rotation, nil)
			rules.Retry = true
			if result, err := r.Run(t.Context(), rules); err != nil || result.Result != "done" {
				t.Errorf("got %+v, %v, want done", result, err)
			}
		})
	}
}

// TestInterrupted: Ctrl-C leaves a run that the next one finishes.
func TestInterrupted(t *testing.T) {
	b := testBundle("se-1", "se-2")
	dir, w := serving(t, b)
	r := testRunner(t, dir, b)
	defer r.Store.Close()
	ctx, cancel := context.WithCancel(t.Context())
	r.point = func(name string) {
		if name == "boot effect" {
			cancel()
		}
	}
	result, err := r.Run(ctx, all(b))
	if !errors.Is(err, ErrInterrupted) || result.Result != "interrupted" || !strings.Contains(err.Error(), "se-1 is ") || hint.Of(err) == "" {
		t.Fatalf("got %+v, %v (hint %q)", result, err, hint.Of(err))
	}
	r.point = nil
	result, err = r.Run(t.Context(), all(b))
	if err != nil || !result.Resumed || result.Result != "done" {
		t.Fatalf("got %+v, %v, want the run resumed and done", result, err)
	}
	for _, name := range []string{"se-1", "se-2"} {
		if n := w.boots(t, name); n != 2 {
			t.Errorf("%s: got %d boots, want 2", name, n)
		}
	}
}

func TestRefusedTouchesNothing(t *testing.T) {
	b := testBundle("se-1", "se-2")
	dir, w := serving(t, b)
	b.Inventory.Regions[0].Floor.Mbps = 1500
	r := testRunner(t, dir, b)
	defer r.Store.Close()
	_, err := r.Run(t.Context(), all(b))
	var refused *Refused
	if !errors.As(err, &refused) || !strings.Contains(err.Error(), "under the floor of 1500") {
		t.Fatalf("got %v, want a refusal with the arithmetic", err)
	}
	if _, open, err := r.Store.OpenRun(t.Context()); open || err != nil {
		t.Errorf("got an open run (%v), %v", open, err)
	}
	if n := w.boots(t, "se-1"); n != 1 {
		t.Errorf("got %d boots, want 1", n)
	}
}

// TestServicesArePrintable: a server that was taken over says what it likes in its health, and an operator's terminal shows it.
func TestServicesArePrintable(t *testing.T) {
	got := services(map[string]string{"sshd": "running", "tun\x1b]0;x\anel": "gone\r\n\u009b2J" + strings.Repeat("x", 4096)})
	if strings.ContainsFunc(got, func(r rune) bool { return r < ' ' || r > '~' }) || len(got) > 300 || !strings.HasPrefix(got, "tun ]0;x nel gone") {
		t.Errorf("got %q", got)
	}
}

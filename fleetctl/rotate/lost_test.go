package rotate

import (
	"errors"
	"testing"
	"time"

	"mayfly/fleetctl/plan"
	"mayfly/inventory"
	"mayfly/inventory/store"
)

// TestLostServes: a server that is said to be dead and serves is refused before anything is touched.
func TestLostServes(t *testing.T) {
	b := testBundle("se-1", "se-2")
	dir, w := serving(t, b)
	r := testRunner(t, dir, b)
	defer r.Store.Close()
	rules := Rules(b.Inventory, b.Policy.Rotation, nil)
	rules.Lost = []string{"se-1", "se-2"}
	var refused *Refused
	if result, err := r.Run(t.Context(), rules); !errors.As(err, &refused) || refused.Why[0].Code != plan.LostServes {
		t.Errorf("got %+v, %v", result, err)
	}
	if n := w.boots(t, "se-1") + w.boots(t, "se-2"); n != 2 {
		t.Errorf("%d boots: something was touched", n)
	}
	if _, open, err := r.Store.OpenRun(t.Context()); err != nil || open {
		t.Errorf("a run is open: %v, %v", open, err)
	}
}

// TestLostCameBack: a server that is heard of between the plan and its departure is planned for again.
func TestLostCameBack(t *testing.T) {
	now := time.Now()
	s := store.Server{Name: "se-1", State: inventory.Serving, BootID: "b", Health: []byte(`{"boot_id":"b","ready":true}`), HealthAt: now.Add(-time.Minute)}
	w := &work{Runner: &Runner{}, rules: plan.Rules{Lost: []string{"se-1"}}}
	b := w.batch([]store.Server{s}, Known{})
	if !ready(s) {
		t.Fatal("the report is not understood")
	}
	for _, tt := range []struct {
		at   time.Time
		want bool
	}{{s.HealthAt, false}, {now, false}} {
		s.HealthAt = tt.at
		got := heard(s, now)
		if got != tt.at.Equal(now) {
			t.Errorf("heard at %s: %v", tt.at, got)
		}
		if same := b.same([]store.Server{s}, now); same != tt.want {
			t.Errorf("heard %v: same %v, want %v", got, same, tt.want)
		}
	}
	b.weights["se-1"] = weigh(store.Server{Name: "se-1", State: inventory.Serving})
	if s.HealthAt = now; b.same([]store.Server{s}, now) {
		t.Error("it came back, and goes")
	}
	if s.HealthAt = now.Add(-time.Minute); !b.same([]store.Server{s}, now) {
		t.Error("it is silent still, and is planned for again")
	}
}

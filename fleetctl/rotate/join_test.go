package rotate

import (
	"encoding/json"
	"testing"
	"time"

	"mayfly/fleetctl/plan"
)

// TestOrderThatTheRunDoesNotHold: while a run for one server is open, an order for anything else is refused before it counts; what is due by itself, and
// the same order again, join.
func TestOrderThatTheRunDoesNotHold(t *testing.T) {
	b := testBundle("se-1", "se-2", "nl-1")
	dir, w := serving(t, b)
	r := testRunner(t, dir, b)
	defer r.Store.Close()
	order := func(f func(*plan.Rules)) plan.Rules {
		rules := Rules(b.Inventory, b.Policy.Rotation, nil)
		f(&rules)
		return rules
	}
	single := func(name string) plan.Rules {
		return order(func(r *plan.Rules) { r.Mode, r.Only = plan.Single, []string{name} })
	}
	p, err := r.Plan(t.Context(), single("se-1"), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(record{p, single("se-1")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Store.BeginRun(t.Context(), data, time.Now()); err != nil {
		t.Fatal(err)
	}
	for what, rules := range map[string]plan.Rules{
		"another server": single("nl-1"),
		"repave":         order(func(r *plan.Rules) { r.Mode, r.All = plan.Everyone, true }),
		"upgrade":        order(func(r *plan.Rules) { r.Mode = plan.Upgrade }),
		"retry":          order(func(r *plan.Rules) { r.Retry = true }),
		"lost":           order(func(r *plan.Rules) { r.Lost = []string{"se-1"} }),
	} {
		if err := r.MayBegin(t.Context(), rules); !refusedFor(err, RunOpen) {
			t.Errorf("%s: got %v, want %s", what, err, RunOpen)
		}
		if result, err := r.Run(t.Context(), rules); !refusedFor(err, RunOpen) || result.Result != "" {
			t.Errorf("%s: Run gave %+v, %v, want %s", what, result, err, RunOpen)
		}
	}
	if err := r.MayBegin(t.Context(), order(func(*plan.Rules) {})); err != nil {
		t.Errorf("what is due by itself: %v", err)
	}
	result, err := r.Run(t.Context(), single("se-1"))
	if err != nil || result.Result != "done" || w.boots(t, "se-1") != 2 || w.boots(t, "nl-1") != 1 {
		t.Errorf("the same order again: got %+v, %v", result, err)
	}
}

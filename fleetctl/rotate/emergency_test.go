package rotate

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"mayfly/fleetctl/plan"
)

// TestEmergencyResumes: a process that nobody gave leave goes on with an emergency as with any run: the floor holds.
func TestEmergencyResumes(t *testing.T) {
	for _, leave := range []bool{false, true} {
		b := testBundle("se-1", "se-2")
		dir, w := serving(t, b)
		r := testRunner(t, dir, b)
		defer r.Store.Close()
		rules := Rules(b.Inventory, b.Policy.Rotation, nil)
		rules.Mode = plan.Emergency
		p, err := r.Plan(t.Context(), rules, time.Now())
		if err != nil || len(p.Now()) != 2 {
			t.Fatalf("got %+v, %v", p, err)
		}
		data, err := json.Marshal(record{p, rules})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Store.BeginRun(t.Context(), data, time.Now()); err != nil {
			t.Fatal(err)
		}
		if leave {
			r.Overrides = func(context.Context, plan.Plan) error { return nil }
		}
		result, err := r.Run(t.Context(), Rules(b.Inventory, b.Policy.Rotation, nil))
		if err != nil || !result.Resumed || result.Result != "done" || w.boots(t, "se-1") != 2 || w.boots(t, "se-2") != 2 {
			t.Errorf("leave %v: got %+v, %v", leave, result, err)
		}
		w.mu.Lock()
		if low := w.lowest["se"]; !leave && low < 1000 {
			t.Errorf("region se fell to %d without anybody's leave, under its floor of 1000", low)
		}
		w.mu.Unlock()
	}
}

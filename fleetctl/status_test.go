package main

import (
	"encoding/json"
	"testing"
	"time"

	"mayfly/fleetctl/plan"
	"mayfly/fleetctl/rotate"
	"mayfly/inventory"
	"mayfly/inventory/store"
	"mayfly/policies"
	"mayfly/policies/bundle"
	"mayfly/rebuild/join"
)

// What status shows as SERVING is what the planner counts.
func TestStatusCountsAsThePlannerDoes(t *testing.T) {
	now := time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
	report := func(boot string, ready bool) json.RawMessage {
		data, err := json.Marshal(join.Health{BootID: boot, Ready: ready})
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	for _, tt := range []struct {
		name string
		mend func(*store.Server)
		want int
	}{
		{"serving and heard of", func(*store.Server) {}, 1000},
		{"silent", func(s *store.Server) { s.HealthAt = now.Add(-plan.FreshFor - 1) }, 0},
		{"never heard of", func(s *store.Server) { s.Health, s.HealthAt = nil, time.Time{} }, 0},
		{"not ready", func(s *store.Server) { s.Health = report("b", false) }, 0},
		{"heard of in another life", func(s *store.Server) { s.Health = report("c", true) }, 0},
		{"past its deadline", func(s *store.Server) { s.Deadline = now }, 0},
		{"older than the policy allows", func(s *store.Server) { s.BootedAt = now.Add(-24 * time.Hour) }, 0},
		{"revoked", func(s *store.Server) { s.Revoked = true }, 0},
		{"baking", func(s *store.Server) { s.State = inventory.Baking }, 0},
	} {
		b := &bundle.Bundle{
			Inventory: inventory.Fleet{
				Name: "lab", Regions: []inventory.Region{{Name: "se"}}, Racks: []inventory.Rack{{Name: "se-a", Region: "se"}},
				Servers: []inventory.Server{{Name: "se-1", Rack: "se-a", Capacity: 1000}},
			},
			Policy: policies.Policy{Rotation: policies.Rotation{MaxAge: policies.Duration(24 * time.Hour), MaxParallel: 1, BootLimit: policies.Duration(time.Minute)}},
		}
		s := store.Server{Name: "se-1", State: inventory.Serving, Epoch: 1, BootID: "b", BootedAt: now.Add(-time.Hour),
			Deadline: now.Add(time.Hour), Health: report("b", true), HealthAt: now.Add(-time.Second)}
		tt.mend(&s)
		got := newStatus(b, []store.Server{s}, now).Regions[0].Serving
		p, err := rotate.MakePlan(b, 1, []store.Server{s}, rotate.Rules(b.Inventory, b.Policy.Rotation, nil), now)
		if err != nil {
			t.Fatal(err)
		}
		if got != tt.want || p.Regions[0].Serving != tt.want {
			t.Errorf("%s: status says %d and the plan %d, want %d", tt.name, got, p.Regions[0].Serving, tt.want)
		}
	}
}

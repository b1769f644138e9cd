package rotate

import (
	"errors"
	"strings"
	"testing"
	"time"

	"mayfly/fleetctl/plan"
	"mayfly/inventory"
)

// TestPlanChanged: a plan that was looked at is carried out as long as what it rests on is as it was, whatever the time is; else it is refused, with what changed.
func TestPlanChanged(t *testing.T) {
	looked := plan.Plan{Made: time.Now(), Inputs: "a", Release: 7, Regions: []plan.RegionTotals{{Name: "se", Capacity: 2000, Floor: 1000}},
		Steps: []plan.Step{{Server: "se-1", State: inventory.Serving, Epoch: 3, Due: true, Release: 7}, {Server: "se-2", State: inventory.Serving, Epoch: 4}}}
	for _, tt := range []struct {
		name   string
		change func(*plan.Plan)
		want   string
	}{
		{"time", func(p *plan.Plan) { p.Made, p.Inputs = p.Made.Add(time.Hour), "b" }, ""},
		{"order", func(p *plan.Plan) { p.Steps[0], p.Steps[1] = p.Steps[1], p.Steps[0] }, ""},
		{"release", func(p *plan.Plan) { p.Release = 8 }, "release: was 7, is 8"},
		{"policy", func(p *plan.Plan) { p.Policy = 2 }, "policy: was version 0, rules , is version 2, rules "},
		{"rules", func(p *plan.Plan) { p.Rules = "abc" }, "policy: was version 0, rules , is version 0, rules abc"},
		{"floor", func(p *plan.Plan) { p.Regions[0].Floor = 1500 }, "region se: was capacity 2000, floor 1000, is capacity 2000, floor 1500"},
		{"life", func(p *plan.Plan) { p.Steps[0].Epoch = 4 }, "server se-1: was serving, life 3, to boot release 7, is serving, life 4, to boot release 7"},
		{"not due", func(p *plan.Plan) { p.Steps[0].Due = false }, "server se-1: was serving, life 3, to boot release 7, is not due any more"},
		{"one more", func(p *plan.Plan) { p.Steps[1].Due = true }, "server se-2: is serving, life 4, to boot release 0, was not in the plan"},
		{"mode", func(p *plan.Plan) { p.Mode = plan.Everyone }, "mode: was , is repave"},
		{"train", func(p *plan.Plan) { p.Train = &plan.TrainState{Release: 7, From: 6, Stage: "canary"} }, "train: is release 7 after 6"},
	} {
		now := looked
		now.Steps, now.Regions = append([]plan.Step(nil), looked.Steps...), append([]plan.RegionTotals(nil), looked.Regions...)
		tt.change(&now)
		for how, check := range map[string]func(plan.Plan) error{"file": SamePlan(looked), "hash": SameGrounds(Grounds(looked)[:MinGrounds])} {
			err := check(now)
			var refused *Refused
			if tt.want == "" {
				if err != nil {
					t.Errorf("%s by %s: got %v", tt.name, how, err)
				}
				continue
			}
			if !errors.As(err, &refused) || refused.Why[0].Code != InputsChanged || how == "file" && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s by %s: got %v, want %q", tt.name, how, err, tt.want)
			}
		}
	}
	if SameGrounds(Grounds(looked)[:MinGrounds-1])(looked) == nil || SameGrounds("")(looked) == nil {
		t.Error("too few digits are enough")
	}
}

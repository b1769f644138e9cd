package alarm

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"mayfly/fleetctl/plan"
)

var now = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func TestEvaluate(t *testing.T) {
	if got := Evaluate(State{}, now); len(got) != 0 {
		t.Errorf("got %+v of a fleet of which there is nothing to say", got)
	}
	for _, tt := range []struct {
		name string
		s    State
		kind Kind // "": nothing
		says string
	}{
		{"danger", State{Danger: []plan.Warning{{Server: "se-1", Region: "se", Left: 7200, Why: "floor"}}}, Deadline, "se-1 of region se ends itself in 2h0m0s"},
		{"under the floor", State{Regions: []plan.RegionTotals{{Name: "se", Capacity: 3000, Serving: 999, Floor: 1000}}}, Floor, "serves 999 Mbit/s of 3000"},
		{"at the floor", State{Regions: []plan.RegionTotals{{Name: "se", Capacity: 3000, Serving: 1000, Floor: 1000}}}, "", ""},
		{"infeasible", State{Refusals: plan.Refusals{{Code: plan.AgeImpossible, Region: "se", Detail: "the arithmetic"}}}, Infeasible, "the arithmetic"},
		{"quarantined", State{Quarantined: []Quarantined{{"se-1", "boot_failed"}}}, Quarantine, "se-1: boot_failed"},
		{"bad release", State{Bad: []Bad{{7, "3 of 5 failed", now.Add(-time.Hour)}}}, Train, "release 7 is marked bad: 3 of 5 failed"},
		{"bad release, long ago", State{Bad: []Bad{{7, "", now.Add(-TrainRecent)}}}, "", ""},
		{"train stops", State{Train: &plan.TrainState{Release: 7, Verdict: plan.Stops, Why: "the bound"}}, Train, "the bound"},
		{"train goes", State{Train: &plan.TrainState{Release: 7, Verdict: plan.Goes}}, "", ""},
		{"paused", State{PausedSince: now.Add(-PausedLong), PausedBy: "ana"}, Paused, "paused by ana for 1h0m0s"},
		{"paused just now", State{PausedSince: now.Add(-PausedLong + time.Second)}, "", ""},
		{"schedule", State{ScheduleFailures: FailedOften}, Schedule, "3 scheduled rotations"},
		{"schedule, twice", State{ScheduleFailures: FailedOften - 1}, "", ""},
		{"store", State{StoreError: "no answer", StoreSince: now.Add(-StoreAway)}, Store, "no answer"},
		{"store, a moment", State{StoreError: "no answer", StoreSince: now}, "", ""},
		{"ledger", State{LedgerSince: now.Add(-LedgerBehind)}, Ledger, "not been cosigned for 30m0s"},
		{"ledger, a moment", State{LedgerSince: now}, "", ""},
		{"host", State{Overdue: []string{"box-1"}}, Host, "box-1 was let go"},
	} {
		got := Evaluate(tt.s, now)
		if tt.kind == "" {
			if len(got) > 0 {
				t.Errorf("%s: got %+v", tt.name, got)
			}
			continue
		}
		if len(got) != 1 || got[0].Kind != tt.kind || !strings.Contains(got[0].Detail, tt.says) || got[0].Subject == "" || got[0].Severity != tt.kind.Severity() {
			t.Errorf("%s: got %+v, want one %s that says %q", tt.name, got, tt.kind, tt.says)
		}
		if !slices.Contains(Kinds, tt.kind) {
			t.Errorf("%s is not in Kinds", tt.kind)
		}
	}
}

func TestEvaluateIsBounded(t *testing.T) {
	var s State
	for i := range 1000 {
		s.Quarantined = append(s.Quarantined, Quarantined{fmt.Sprintf("se-%d", i), "x"})
	}
	got := Evaluate(s, now)
	if len(got) != maxOfKind+1 || got[maxOfKind].Detail != "936 more" {
		t.Errorf("got %d alarms, the last %+v", len(got), got[len(got)-1])
	}
}

func TestBook(t *testing.T) {
	var b Book
	floor := Alarm{Kind: Floor, Subject: "se", Detail: "999"}
	if begun, over := b.Update([]Alarm{floor}, now); len(begun) != 1 || len(over) != 0 || !begun[0].Since.Equal(now) {
		t.Errorf("first: got %+v, %+v", begun, over)
	}
	floor.Detail = "998"
	if begun, over := b.Update([]Alarm{floor}, now.Add(10*time.Second)); len(begun)+len(over) != 0 {
		t.Errorf("other numbers: got %+v, %+v, want nothing said", begun, over)
	}
	if begun, over := b.Update(nil, now.Add(20*time.Second)); len(begun)+len(over) != 0 {
		t.Errorf("gone for a moment: got %+v, %+v, want nothing said", begun, over)
	}
	if begun, over := b.Update([]Alarm{floor}, now.Add(30*time.Second)); len(begun)+len(over) != 0 || len(b.Open()) != 1 || !b.Open()[0].Since.Equal(now) {
		t.Errorf("back: got %+v, %+v, %+v, want nothing said", begun, over, b.Open())
	}
	if begun, over := b.Update(nil, now.Add(30*time.Second+Quiet)); len(begun) != 0 || len(over) != 1 || over[0].Detail != "998" || len(b.Open()) != 0 {
		t.Errorf("gone: got %+v, %+v", begun, over)
	}
	if begun, _ := b.Update([]Alarm{floor}, now.Add(time.Hour)); len(begun) != 1 {
		t.Errorf("again: got %+v", begun)
	}
	if _, over := b.Update(nil, now); len(over) != 1 {
		t.Errorf("the clock went back: got %+v, want it over, and not for ever", over)
	}
}

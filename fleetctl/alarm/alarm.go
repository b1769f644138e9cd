// Package alarm says what people have to hear of a fleet, from what is known of it: pure. What is said, when it begins and when it is over, is
// `fleetctl serve`'s to say, in its log and in its metrics (docs/formats/metrics.md). An alarm names servers and regions, and nobody's user.
//
// An alarm about a deadline comes long before the deadline: it is the planner's (plan.Danger), from the same arithmetic that decides who goes.
package alarm

import (
	"fmt"
	"time"

	"mayfly/fleetctl/plan"
)

// Kind is what an alarm is about.
type Kind string

// Specification constants: kinds of alarms.
const (
	Deadline   Kind = "deadline_in_danger" // a server may end itself before it is rebuilt
	Floor      Kind = "region_under_floor"
	Infeasible Kind = "rules_infeasible" // the rules cannot be kept with this inventory: nothing begins
	Quarantine Kind = "quarantined"
	Train      Kind = "train_stopped" // a release was found bad
	Paused     Kind = "paused_long"
	Schedule   Kind = "schedule_failing"
	Store      Kind = "store_unreachable"
	Ledger     Kind = "ledger_not_cosigned"
	Host       Kind = "host_overdue" // a host that was let go has not come back
)

// Kinds are all of them.
var Kinds = []Kind{Deadline, Floor, Infeasible, Quarantine, Train, Paused, Schedule, Store, Ledger, Host}

// Severity says how soon somebody should look.
type Severity string

// Severities.
const (
	Warning  Severity = "warning"
	Critical Severity = "critical"
)

// Severity of a kind.
func (k Kind) Severity() Severity {
	switch k {
	case Deadline, Floor, Infeasible, Store:
		return Critical
	}
	return Warning
}

// Implementation constants.
const (
	PausedLong   = time.Hour
	StoreAway    = 30 * time.Second
	LedgerBehind = 30 * time.Minute
	TrainRecent  = 24 * time.Hour // for how long a bad release is said
	FailedOften  = 3              // scheduled rotations in a row

	maxOfKind = 64 // alarms of one kind; the rest are counted in one
)

// Alarm is one of them.
type Alarm struct {
	Kind     Kind      `json:"kind"`
	Severity Severity  `json:"severity"`
	Subject  string    `json:"subject"` // a server, region or release; with the kind, which alarm it is
	Detail   string    `json:"detail"`
	Since    time.Time `json:"since,omitzero"` // when it was first seen
}

// Quarantined is a server that is kept out.
type Quarantined struct{ Server, Cause string }

// Bad is a release that was found bad.
type Bad struct {
	Version uint64
	Why     string
	At      time.Time
}

// State is what is known. The zero value is a fleet of which there is nothing to say.
type State struct {
	StoreError string // why the store does not answer, since
	StoreSince time.Time

	Regions     []plan.RegionTotals
	Refusals    plan.Refusals
	Danger      []plan.Warning
	Quarantined []Quarantined
	Train       *plan.TrainState
	Bad         []Bad

	PausedSince time.Time // zero: it is not
	PausedBy    string

	ScheduleFailures int
	LedgerSince      time.Time // when the oldest entries that no witness has cosigned came; zero: there are none
	Overdue          []string  // hosts
}

// Evaluate names what there is to say at now, in the order of Kinds.
func Evaluate(s State, now time.Time) []Alarm {
	var all []Alarm
	count := map[Kind]int{}
	add := func(k Kind, subject, format string, args ...any) {
		if count[k]++; count[k] <= maxOfKind {
			all = append(all, Alarm{Kind: k, Severity: k.Severity(), Subject: subject, Detail: fmt.Sprintf(format, args...)})
		}
	}
	for _, w := range s.Danger {
		add(Deadline, w.Server, "%s of region %s ends itself in %v, and waits: %s", w.Server, w.Region, (time.Duration(w.Left) * time.Second).Round(time.Second), w.Why)
	}
	for _, g := range s.Regions {
		if g.Serving < g.Floor {
			add(Floor, g.Name, "region %s serves %d Mbit/s of %d, and its floor is %d", g.Name, g.Serving, g.Capacity, g.Floor)
		}
	}
	for _, r := range s.Refusals {
		add(Infeasible, r.Code+" "+r.Region, "%s", r.Detail)
	}
	for _, q := range s.Quarantined {
		add(Quarantine, q.Server, "%s: %s", q.Server, q.Cause)
	}
	for _, b := range s.Bad {
		if now.Sub(b.At) < TrainRecent {
			add(Train, fmt.Sprint(b.Version), "release %d is marked bad: %s", b.Version, b.Why)
		}
	}
	if s.Train != nil && s.Train.Verdict == plan.Stops {
		add(Train, fmt.Sprint(s.Train.Release), "release %d: %s", s.Train.Release, s.Train.Why)
	}
	if !s.PausedSince.IsZero() && now.Sub(s.PausedSince) >= PausedLong {
		add(Paused, "rotation", "paused by %s for %v: servers grow older", orNobody(s.PausedBy), now.Sub(s.PausedSince).Round(time.Minute))
	}
	if s.ScheduleFailures >= FailedOften {
		add(Schedule, "schedule", "%d scheduled rotations in a row have failed", s.ScheduleFailures)
	}
	if s.StoreError != "" && now.Sub(s.StoreSince) >= StoreAway {
		add(Store, "store", "for %v: %s", now.Sub(s.StoreSince).Round(time.Second), s.StoreError)
	}
	if !s.LedgerSince.IsZero() && now.Sub(s.LedgerSince) >= LedgerBehind {
		add(Ledger, "ledger", "its newest entries have not been cosigned for %v: no client can check a new server", now.Sub(s.LedgerSince).Round(time.Minute))
	}
	for _, h := range s.Overdue {
		add(Host, h, "%s was let go for its update, and has not come back", h)
	}
	for _, k := range Kinds {
		if n := count[k] - maxOfKind; n > 0 {
			all = append(all, Alarm{Kind: k, Severity: k.Severity(), Subject: "more", Detail: fmt.Sprintf("%d more", n)})
		}
	}
	return all
}

func orNobody(name string) string {
	if name == "" {
		return "somebody"
	}
	return name
}

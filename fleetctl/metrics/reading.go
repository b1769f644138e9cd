package metrics

import (
	"time"

	"mayfly/fleetctl/alarm"
	"mayfly/fleetctl/plan"
	"mayfly/inventory"
)

// Reading is what was found when the fleet was looked at last. It holds no name but those of regions.
type Reading struct {
	At            time.Time
	Policy        uint64
	PolicyExpires time.Time
	Release       uint64 // in use
	Good          uint64 // newest that is marked good
	Bad           int    // releases that are marked bad

	Plan     plan.Plan
	PlanTook time.Duration
	Refused  bool // the rules cannot be kept
	Servers  []Server

	Run         bool // one is open
	RunBegan    time.Time
	Cancelled   bool
	Paused      bool
	Claims      int
	HostsOut    int
	HostsLate   int
	Next        time.Time // when the schedule begins again, as far as this process knows; zero: never
	Failures    int       // scheduled rotations in a row that failed
	LedgerSize  uint64
	LedgerKnown uint64 // of it, cosigned by the witnesses
	Alarms      []alarm.Alarm
}

// Server is what is counted of a server.
type Server struct {
	Region string
	State  inventory.State
	Age    time.Duration // of its life; negative: it has none
	Left   time.Duration // until its deadline; only with an age
}

// Outcome is how a rotation ended.
type Outcome string

// Outcomes.
const (
	Served      Outcome = "served"
	Quarantined Outcome = "quarantined"
)

var (
	outcomes = []Outcome{Served, Quarantined}
	states   = []inventory.State{inventory.New, inventory.Serving, inventory.Draining, inventory.Wiping, inventory.Booting, inventory.Attesting,
		inventory.Baking, inventory.Quarantined, inventory.Standby}
	verdicts  = []plan.Verdict{plan.Bakes, plan.Goes, plan.Holds, plan.Stops, plan.Ends}
	scheduled = []string{"done", "nothing due", "quarantined", "stuck", "cancelled", "failed", other}
	protocols = []string{inventory.UpdatesFleetLock, inventory.UpdatesOmaha}
	ageBounds = []float64{600, 3600, 3 * 3600, 6 * 3600, 12 * 3600, 24 * 3600, 2 * 24 * 3600, 3 * 24 * 3600, 4 * 24 * 3600, 5 * 24 * 3600, 6 * 24 * 3600, 7 * 24 * 3600}
	leftBound = []float64{0, 300, 900, 3600, 3 * 3600, 6 * 3600, 12 * 3600, 24 * 3600, 2 * 24 * 3600, 4 * 24 * 3600, 7 * 24 * 3600}
)

// other is the label of what is in none of the lists: the number of series stays bounded.
const other = "other"

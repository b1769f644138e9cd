package simulate

import (
	"time"

	"mayfly/fleetctl/plan"
)

// Config is what is simulated.
type Config struct {
	Snapshot plan.Snapshot
	Rules    plan.Rules
	Start    time.Time
	Days     int
	Seed     uint64
	Failures Failures
	Releases []Release // that come into use on the way
}

// Release comes into use while the simulation runs.
type Release struct {
	After   time.Duration `json:"after"` // since the start
	Version uint64        `json:"version"`
	Errors  float64       `json:"errors"` // share of boots of it that fail, beside the others
}

// Failures are drawn for every boot, from the seed. The zero value is a fleet in which nothing fails; a boot then takes Boot.
type Failures struct {
	Boot    time.Duration // a usual boot, from power on to serving, bake included; 0: a third of what the rules allow
	Slow    float64       // share of boots as slow as the rules allow
	Failed  float64       // share of boots that fail
	Lying   float64       // share of BMCs' answers that are "off" while the server is on: the boot fails after its whole limit
	Steps   int           // how many times the controller's clock steps, by a few minutes
	Crashes int           // how many times the controller is away, for up to Away
	Away    time.Duration // 0: an hour
	Mend    time.Duration // how long a quarantined server waits for a person; 0: a day
}

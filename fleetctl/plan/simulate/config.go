package simulate

import (
	"time"

	"mayfly/fleetctl/plan"
)

// Config is what is simulated.
type Config struct {
	Snapshot plan.Snapshot // as it is at the start; every server that serves was just heard of
	Rules    plan.Rules
	Start    time.Time
	Days     int
	Hours    int // beside Days
	Seed     uint64
	Failures Failures
	Releases []Release // that come into use on the way, in order

	Samples int              // points of the chart; 0: 240
	Trace   func(plan.Event) // told of everything, for a check from outside; may be nil
}

// Release comes into use while the simulation runs.
type Release struct {
	After   time.Duration `json:"after"` // since the start
	Version uint64        `json:"version"`
	Errors  float64       `json:"errors"` // share of boots of it that fail, beside the others
}

// Failures are drawn for every boot, from the seed. The zero value is a fleet in which nothing fails.
type Failures struct {
	Boot    time.Duration // a usual rotation, from leaving to serving again; 0: a third of what the rules allow
	Fixed   time.Duration // not 0: every rotation takes so long
	Slow    float64       // share of rotations as slow as the rules allow
	Failed  float64       // share of boots that fail; as many are tried as the rules allow, then the server is quarantined
	Lying   float64       // share of boots whose BMC says off while the server is on: found out, and tried again
	Steps   int           // how many times the controller's clock steps, by two minutes at most
	Crashes int           // how many times the controller is away, for up to Away
	Away    time.Duration // 0: ten minutes
	Mend    time.Duration // how long a quarantined server waits for a person; 0: a day
}

func (c Config) length() time.Duration {
	return time.Duration(c.Days)*24*time.Hour + time.Duration(c.Hours)*time.Hour
}

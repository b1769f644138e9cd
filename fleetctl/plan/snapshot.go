package plan

import (
	"time"

	"mayfly/inventory"
)

// Snapshot is the fleet as it is now.
type Snapshot struct {
	Fleet   string   `json:"fleet"`
	Policy  uint64   `json:"policy"`  // version of the signed bundle
	Release uint64   `json:"release"` // version that a rebuilt server boots
	Regions []Region `json:"regions"`
	Servers []Server `json:"servers"`
}

// Region is a region with its floor worked out in Mbit/s.
type Region struct {
	Name  string `json:"name"`
	Floor int    `json:"floor"`
}

// Server is one server as the store knows it.
type Server struct {
	Name     string          `json:"name"`
	Region   string          `json:"region"`
	Capacity int             `json:"capacity"`
	Bastion  bool            `json:"bastion,omitempty"` // never the last one to leave on purpose
	State    inventory.State `json:"state"`
	Epoch    uint64          `json:"epoch"`    // the life it lives, 0 before the first
	Deadline time.Time       `json:"deadline"` // when it ends itself; zero: unknown, so it is due at once
	Revoked  bool            `json:"revoked"`  // its ticket came twice: it is cut off, and ends itself

	Tainted   bool      `json:"tainted,omitempty"`   // an engineer was let onto this life: it never serves again
	HeldUntil time.Time `json:"held_until,omitzero"` // the engineer may be on it until then
}

// Rules are the policy's rotation rules and what the operator asked for.
type Rules struct {
	MaxAge      time.Duration `json:"max_age"`
	MaxParallel int           `json:"max_parallel"`
	DrainLimit  time.Duration `json:"drain_limit"`
	BootLimit   time.Duration `json:"boot_limit"`
	Bake        time.Duration `json:"bake"`
	Retries     int           `json:"retries"`

	All   bool `json:"all"`   // every server is due now
	Retry bool `json:"retry"` // quarantined servers are due again

	// Targets, when not nil, are the only servers due: those of a run that has begun. The number is the life to end;
	// a server that has begun a later one is done.
	Targets map[string]uint64 `json:"targets,omitempty"`

	// Lost are servers that the operator says are dead: they count as no capacity, so they may go at once.
	Lost []string `json:"lost,omitempty"`
}

// Health is when each server was last heard of as ready.
type Health map[string]time.Time

// Implementation constants.
const (
	// FreshFor is how long a report of health counts. A server that was silent for longer is no capacity.
	FreshFor = 15 * time.Second
	// WipeLimit is what the arithmetic allows for powering off and reading back as off.
	WipeLimit = time.Minute
	// EarlyPercent of max_age before its deadline a server becomes due at the latest, however quick the fleet is.
	EarlyPercent = 15
)

// Turn is the longest that one server is out: drain, every boot that the rules allow, bake.
func (r Rules) Turn() time.Duration {
	return r.DrainLimit + time.Duration(r.Retries+1)*(WipeLimit+r.BootLimit) + r.Bake
}

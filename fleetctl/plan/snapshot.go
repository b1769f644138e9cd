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

	Good   uint64                    `json:"good,omitempty"`   // newest release that is marked good; 0: none
	Bad    []uint64                  `json:"bad,omitempty"`    // releases that nothing boots any more
	Since  time.Time                 `json:"since,omitzero"`   // when Release came into use: its train begins
	Trials []Trial                   `json:"trials,omitempty"` // ends of rotations to Release, oldest first
	Left   []time.Time               `json:"left,omitempty"`   // when servers left in the last hour, for max_per_hour
	Paused bool                      `json:"paused,omitempty"` // nothing begins
	Here   string                    `json:"here,omitempty"`   // the server that this controller runs on: another one takes it out
	Zones  map[string]*time.Location `json:"-"`                // of the windows; a zone that is not here closes its window
}

// Trial is how one rotation to the release of a train ended.
type Trial struct {
	Server   string    `json:"server"`
	Attempts int       `json:"attempts"`
	Failed   int       `json:"failed"`
	Served   bool      `json:"served"`
	At       time.Time `json:"at"`
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
	Control  bool            `json:"control,omitempty"` // a controller's host: no more than one is out
	Role     string          `json:"role,omitempty"`
	Domains  Domains         `json:"domains,omitzero"`
	Internal bool            `json:"internal,omitempty"` // without users: new releases come here first
	Spare    bool            `json:"spare,omitempty"`    // serves only while others of its region are out; Standby otherwise
	Release  uint64          `json:"release,omitempty"`  // that its life runs; 0: unknown
	State    inventory.State `json:"state"`
	Epoch    uint64          `json:"epoch"`    // the life it lives, 0 before the first
	Deadline time.Time       `json:"deadline"` // when it ends itself; zero: unknown, so it is due at once
	Revoked  bool            `json:"revoked"`  // its ticket came twice: it is cut off, and ends itself

	Tainted   bool      `json:"tainted,omitempty"`   // an engineer was let onto this life: it never serves again
	HeldUntil time.Time `json:"held_until,omitzero"` // the engineer may be on it until then
}

// Domains are what a server shares with others: where one fails, all do. "" is none.
type Domains struct {
	Rack   string `json:"rack,omitempty"`
	Switch string `json:"switch,omitempty"`
	BMC    string `json:"bmc,omitempty"`    // the network that its BMC is in
	Mirror string `json:"mirror,omitempty"` // the image mirror that it asks first
}

// Mode is what a run is for.
type Mode string

// Modes. The zero value is Scheduled.
const (
	Scheduled Mode = ""          // what is due by age, and the next step of the train
	Everyone  Mode = "repave"    // every server, with the release that it would boot anyway
	Upgrade   Mode = "upgrade"   // every server that does not run the release in use, by the train's stages
	Emergency Mode = "emergency" // every server, at once: over floors, windows, blackouts, caps and rates
	Single    Mode = "single"    // the servers of Only
)

// RoleFloor is the capacity that the servers of a region and role keep.
type RoleFloor struct {
	Region string `json:"region"`
	Role   string `json:"role"`
	Mbps   int    `json:"mbps"`
}

// Cap is how many servers that share a domain may be out at once.
type Cap struct {
	Domain string `json:"domain"` // "rack", "switch", "bmc" or "mirror"
	Name   string `json:"name"`   // "": each of them
	Max    int    `json:"max"`
}

// Window is when planned rotations begin, by the clocks of a place.
type Window struct {
	Regions []string       `json:"regions"` // none: all
	Days    []time.Weekday `json:"days"`
	From    int            `json:"from"` // minute of the day
	To      int            `json:"to"`   // 1440 is the day's end
	Zone    string         `json:"zone"` // "": UTC
}

// Blackout is when none begins.
type Blackout struct {
	Name    string    `json:"name"`
	Regions []string  `json:"regions"` // none: all
	From    time.Time `json:"from"`
	To      time.Time `json:"to"`
}

// Train is how a new release comes to servers. The zero value is no train.
type Train struct {
	Canaries   int           `json:"canaries"`
	Steps      []int         `json:"steps"` // percent, rising to 100
	Bake       time.Duration `json:"bake"`
	MaxErrors  float64       `json:"max_errors"`
	Confidence float64       `json:"confidence"`
}

// Rules are the policy's rotation rules and what the operator asked for.
type Rules struct {
	MaxAge      time.Duration `json:"max_age"`
	MaxParallel int           `json:"max_parallel"`
	DrainLimit  time.Duration `json:"drain_limit"`
	BootLimit   time.Duration `json:"boot_limit"`
	Bake        time.Duration `json:"bake"`
	Retries     int           `json:"retries"`

	MaxPerHour int         `json:"max_per_hour,omitempty"` // 0: not limited
	MaxSpares  int         `json:"max_spares,omitempty"`   // of one region, that serve at once
	Floors     []RoleFloor `json:"floors,omitempty"`       // beside the regions' own
	Caps       []Cap       `json:"caps,omitempty"`
	Windows    []Window    `json:"windows,omitempty"` // none: always
	Blackouts  []Blackout  `json:"blackouts,omitempty"`
	Train      Train       `json:"train,omitzero"`

	Mode Mode     `json:"mode,omitempty"`
	Only []string `json:"only,omitempty"` // of Mode Single

	All   bool `json:"all"`   // every server is due now
	Retry bool `json:"retry"` // quarantined servers are due again

	// Targets, when not nil, are the only servers due: those of a run that has begun. The number is the life to end;
	// a server that has begun a later one is done.
	Targets map[string]uint64 `json:"targets,omitempty"`

	// Lost are servers that the operator says are dead: they count as no capacity, so they may go at once.
	// One that was heard of within FreshFor is not: lost_serves.
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
	// JitterPercent of max_age is over how much a fleet that was booted together spreads.
	JitterPercent = 10
)

// Turn is the longest that one server is out: drain, every boot that the rules allow, bake.
func (r Rules) Turn() time.Duration {
	return r.DrainLimit + time.Duration(r.Retries+1)*(WipeLimit+r.BootLimit) + r.Bake
}

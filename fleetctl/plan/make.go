package plan

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"mayfly/inventory"
)

// Reason is why a server goes now, or why not.
type Reason string

// Reasons of servers that go now, or would if there were room.
const (
	First    Reason = "first_boot" // never booted by this controller
	Due      Reason = "due"        // its deadline comes near
	Expired  Reason = "expired"    // its deadline has passed: it has ended itself
	Repave   Reason = "repave"     // asked for: every server
	Lost     Reason = "lost"       // the operator says it is dead
	Revoked  Reason = "revoked"    // its ticket came twice: its life is over
	Retried  Reason = "retried"    // quarantined, and asked for
	Unknown  Reason = "unknown_age"
	InFlight Reason = "in_flight"   // begun, is carried on
	Young    Reason = "young"       // not due yet
	Done     Reason = "done"        // this run has rebuilt it
	NotAsked Reason = "not_in_run"  // the run began without it
	Floor    Reason = "floor"       // its removal would break the floor now
	Behind   Reason = "behind"      // another server of its region goes first
	Bastion  Reason = "bastion"     // another bastion is out: engineers have to get in
	Parallel Reason = "parallel"    // max_parallel servers are out already
	Withheld Reason = "quarantined" // kept out until asked for
	Held     Reason = "held"        // drained for an engineer, who may be on it
	Tainted  Reason = "tainted"     // an engineer was on it: its rebuild is carried on at once

	Forced     Reason = "deadline"    // goes although its window is closed or max_per_hour is reached: its deadline comes first
	Upgraded   Reason = "train"       // the train has reached it
	RolledBack Reason = "rolled_back" // it runs a bad release
	Urgent     Reason = "emergency"   // asked for: every server, over all limits
	Asked      Reason = "single"      // asked for by name
	Surge      Reason = "spare"       // a spare, that comes while others are held by a floor
	SurgeOver  Reason = "spare_over"  // a spare that serves, and nothing of its region is due any more
	StandsBy   Reason = "standby"     // a spare that is off until it is needed
	RoleHeld   Reason = "role_floor"  // its removal would break the floor of its role now
	Capped     Reason = "cap"         // too many that share a rack, a switch, a BMC network or a mirror are out
	Closed     Reason = "window"      // its region's windows are closed
	Blacked    Reason = "blackout"    // planned rotations are stopped by name
	RateLimit  Reason = "rate"        // max_per_hour servers have left in the last hour
	Controller Reason = "controller"  // another controller is out
	HereReason Reason = "own_host"    // this controller runs on it
	IsPaused   Reason = "paused"      // nothing begins
	Current    Reason = "current"     // runs the release in use already
	undecided  Reason = ""
)

// Plan is what happens now, and what would happen next.
type Plan struct {
	Made    time.Time      `json:"made"`
	Inputs  string         `json:"inputs"` // SHA-256 of snapshot, rules, health and time
	Release uint64         `json:"release"`
	Regions []RegionTotals `json:"regions"`
	Steps   []Step         `json:"steps"`           // every server, in the order in which they would go
	Train   *TrainState    `json:"train,omitempty"` // nil: no train
	Paused  bool           `json:"paused,omitempty"`
	Mode    Mode           `json:"mode,omitempty"`
}

// RegionTotals is a region's capacity in Mbit/s.
type RegionTotals struct {
	Name     string `json:"name"`
	Capacity int    `json:"capacity"`
	Serving  int    `json:"serving"`
	Floor    int    `json:"floor"`
	AtOnce   int    `json:"at_once"`      // servers that may be out at once, at least
	Lead     int64  `json:"lead_seconds"` // how long before its deadline a server becomes due

	Due    int       `json:"due,omitempty"`    // servers that are due, or in flight
	Open   bool      `json:"open"`             // planned rotations may begin
	Opens  time.Time `json:"opens,omitzero"`   // when they may next, if not now
	Spares int       `json:"spares,omitempty"` // spares that serve
}

// Step is one server: now or not, and why.
type Step struct {
	Server   string          `json:"server"`
	Region   string          `json:"region"`
	State    inventory.State `json:"state"`
	Epoch    uint64          `json:"epoch"` // the life that the rebuild ends
	Capacity int             `json:"capacity"`
	Deadline time.Time       `json:"deadline"`
	Due      bool            `json:"due"` // it is to be rebuilt: now, or as soon as there is room
	Now      bool            `json:"now"`
	Release  uint64          `json:"release,omitempty"` // that it boots
	Standby  bool            `json:"standby,omitempty"` // a spare: it is wiped and stays off
	Reason   Reason          `json:"reason"`
	Why      string          `json:"why"`
}

// Now are the servers that go now.
func (p Plan) Now() []Step {
	return slices.DeleteFunc(slices.Clone(p.Steps), func(s Step) bool { return !s.Now })
}

// Targets are the lives that a run of this plan ends.
func (p Plan) Targets() map[string]uint64 {
	t := map[string]uint64{}
	for _, s := range p.Steps {
		if s.Due {
			t[s.Server] = s.Epoch
		}
	}
	return t
}

// Make plans. With refusals, no step is due.
func Make(s Snapshot, r Rules, h Health, now time.Time) (Plan, Refusals) {
	p := Plan{Made: now, Inputs: inputs(s, r, h, now), Release: s.Release}
	all, refused := regions(s, r)
	if len(refused) > 0 {
		return p, refused
	}
	free := r.MaxParallel
	for _, x := range s.Servers {
		g := all[x.Region]
		switch {
		case x.held(now): // out for as long as people need it, and in nobody's way but the floor's
			g.missing += x.Capacity
			g.failures = append(g.failures, x.Name)
		case x.State.InFlight():
			g.back += x.Capacity
			free--
		case counts(x, r, h, now):
			g.serving += x.Capacity
		default:
			g.missing += x.Capacity
			g.failures = append(g.failures, x.Name)
		}
	}
	for _, x := range s.Regions {
		g := all[x.Name]
		p.Regions = append(p.Regions, RegionTotals{Name: g.Name, Capacity: g.total, Serving: g.serving, Floor: g.Floor, AtOnce: g.width, Lead: int64(g.lead / time.Second), Open: true})
	}
	out := bastionsOut(s, r, h, now)
	for _, x := range order(s.Servers) {
		p.Steps = append(p.Steps, decide(x, all[x.Region], r, h, now, &free, &out))
	}
	return p, nil
}

// bastionsOut names the bastions of the fleet through which nobody comes now.
func bastionsOut(s Snapshot, r Rules, h Health, now time.Time) []string {
	var out []string
	for _, x := range s.Servers {
		if x.Bastion && !counts(x, r, h, now) {
			out = append(out, x.Name)
		}
	}
	return out
}

// order puts servers that serve nobody for certain (new and revoked ones) first, then the earliest deadline.
func order(servers []Server) []Server {
	servers = slices.Clone(servers)
	slices.SortFunc(servers, func(a, b Server) int {
		return cmp.Or(
			-cmp.Compare(rank(a), rank(b)),
			a.Deadline.Compare(b.Deadline),
			cmp.Compare(a.Name, b.Name))
	})
	return servers
}

func rank(s Server) int {
	if s.State == inventory.New || s.Revoked {
		return 1
	}
	return 0
}

// counts reports whether a server is capacity that its region has now, as far as the operator knows too.
func counts(x Server, r Rules, h Health, now time.Time) bool {
	return x.Serves(h, now) && !dead(x, r, now)
}

// dead reports whether a server is gone for certain, whatever state the store has it in.
func dead(x Server, r Rules, now time.Time) bool {
	return x.over(now) || slices.Contains(r.Lost, x.Name)
}

// Serves reports whether a server takes users now: its state says so, its life is not over, and it was heard of as ready
// within FreshFor. What plans count as serving, people are shown as serving.
func (x Server) Serves(h Health, now time.Time) bool {
	heard, ok := h[x.Name]
	return x.State == inventory.Serving && !x.over(now) && ok && now.Sub(heard) <= FreshFor
}

// held reports whether an engineer may be on the server: until then nobody rebuilds it.
func (x Server) held(now time.Time) bool {
	return x.State == inventory.Draining && x.Tainted && now.Before(x.HeldUntil)
}

func (x Server) over(now time.Time) bool { return x.Revoked || Passed(x.Deadline, now) }

// Passed reports whether a life with this deadline is over. A deadline that is not known has not passed.
func Passed(deadline, now time.Time) bool { return !deadline.IsZero() && !now.Before(deadline) }

// decide says what happens to one server and takes its place in the region's and the fleet's count.
func decide(x Server, g *region, r Rules, h Health, now time.Time, free *int, out *[]string) Step {
	s := Step{Server: x.Name, Region: x.Region, State: x.State, Epoch: x.Epoch, Capacity: x.Capacity, Deadline: x.Deadline}
	var wait Reason
	s.Reason, wait, s.Why = due(x, g, r, now)
	if wait != undecided {
		s.Reason = wait
		return s
	}
	s.Due = true
	loses := 0
	if counts(x, r, h, now) {
		loses = x.Capacity
	}
	// A server that is gone for certain takes nothing away. One that is only silent may still serve: it leaves only while
	// the rest keeps the floor.
	gone := x.State != inventory.Serving || dead(x, r, now)
	left := g.serving - loses
	others := slices.DeleteFunc(slices.Clone(*out), func(name string) bool { return name == x.Name })
	switch {
	case x.Bastion && !gone && len(others) > 0:
		s.Reason, s.Why = Bastion, fmt.Sprintf("one bastion at a time (out: %s)", list(others))
	case !gone && !x.Bastion && left < g.Floor && left+g.back < g.Floor:
		s.Reason = Floor
		s.Why = fmt.Sprintf("serving %d - %d = %d, under the floor of %d, and nothing in flight mends it (out: %s)",
			g.serving, loses, left, g.Floor, list(g.failures))
	case *free <= 0:
		s.Reason, s.Why = Parallel, fmt.Sprintf("max_parallel %d servers are out", r.MaxParallel)
		g.head(x.Name, gone || x.Bastion)
	case !gone && !x.Bastion && g.blocked != "":
		s.Reason, s.Why = Behind, fmt.Sprintf("%s of region %s goes first", g.blocked, g.Name)
	case !gone && !x.Bastion && left < g.Floor:
		s.Reason = Behind
		s.Why = fmt.Sprintf("serving %d - %d = %d, under the floor of %d until %d in flight are back", g.serving, loses, left, g.Floor, g.back)
		g.head(x.Name, gone)
	default:
		s.Now = true
		*free--
		g.serving = left
		g.back += x.Capacity
		if x.Bastion {
			*out = append(others, x.Name)
		}
	}
	return s
}

// head makes the rest of a region wait for a server that waits itself.
func (g *region) head(name string, gone bool) {
	if g.blocked == "" && !gone {
		g.blocked = name
	}
}

// due says why a server is to be rebuilt, or in wait why it is not.
func due(x Server, g *region, r Rules, now time.Time) (why, wait Reason, text string) {
	if x.held(now) {
		return undecided, Held, "drained for an engineer until " + x.HeldUntil.UTC().Format(time.TimeOnly) + " UTC, then rebuilt"
	}
	if x.State == inventory.Draining && x.Tainted {
		return undecided, Tainted, "an engineer was on it: it is wiped next"
	}
	if x.State.InFlight() {
		return undecided, InFlight, "begun, is carried on"
	}
	if x.State == inventory.Quarantined && !r.Retry {
		return undecided, Withheld, "kept out until `fleetctl rotate --retry`"
	}
	if r.Targets != nil {
		epoch, asked := r.Targets[x.Name]
		if !asked {
			return undecided, NotAsked, "the run began without it"
		}
		if x.Epoch > epoch {
			return undecided, Done, fmt.Sprintf("rebuilt: life %d, was %d", x.Epoch, epoch)
		}
	}
	starts := x.Deadline.Add(-g.lead)
	switch {
	case x.State == inventory.New:
		return First, undecided, "never booted by this controller"
	case x.State == inventory.Quarantined:
		return Retried, undecided, "quarantined, another try was asked for"
	case slices.Contains(r.Lost, x.Name):
		return Lost, undecided, "the operator says it is dead"
	case x.Revoked:
		return Revoked, undecided, "its ticket came twice: its life is revoked, nothing of it is believed"
	case x.Deadline.IsZero():
		return Unknown, undecided, "its deadline is not known"
	case Passed(x.Deadline, now):
		return Expired, undecided, "its deadline passed " + now.Sub(x.Deadline).Round(time.Second).String() + " ago: it has ended itself"
	case r.All || r.Targets != nil:
		return Repave, undecided, "asked for, " + x.Deadline.Sub(now).Round(time.Second).String() + " before its deadline"
	case !now.Before(starts):
		return Due, undecided, x.Deadline.Sub(now).Round(time.Second).String() + " before its deadline"
	}
	return undecided, Young, "due in " + starts.Sub(now).Round(time.Second).String()
}

func list(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	const most = 5
	names = slices.Sorted(slices.Values(names))
	if len(names) > most {
		return fmt.Sprintf("%v and %d more", names[:most], len(names)-most)
	}
	return fmt.Sprint(names)
}

// inputs names what a plan was made from.
func inputs(s Snapshot, r Rules, h Health, now time.Time) string {
	data, err := json.Marshal(struct {
		Snapshot Snapshot
		Rules    Rules
		Health   Health
		Now      time.Time
	}{s, r, h, now.UTC()})
	if err != nil {
		panic("plan: internal error: " + err.Error())
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

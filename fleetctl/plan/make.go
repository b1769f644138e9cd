package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
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
	LostHeard  Reason = LostServes    // said to be dead, and heard of just now
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
	Policy  uint64         `json:"policy,omitempty"` // version of the signed policy
	Rules   string         `json:"rules,omitempty"`  // SHA-256 of the rules, without what the order is
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
	Reason   Reason          `json:"reason"`
	Why      string          `json:"why"`
	Release  uint64          `json:"release,omitempty"` // that it boots
	Standby  bool            `json:"standby,omitempty"` // a spare: it is wiped and stays off
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
	p, _, refused := makePlan(s, r, h, now)
	return p, refused
}

func makePlan(s Snapshot, r Rules, h Health, now time.Time) (Plan, *engine, Refusals) {
	p := Plan{Made: now, Inputs: inputs(s, r, h, now), Release: s.boots(), Paused: s.Paused, Mode: r.Mode}
	e, refused := newEngine(s, r, h, false, now, now)
	if len(refused) > 0 {
		return p, e, refused
	}
	if r.Targets == nil { // a run that has begun holds it instead: lost_serves
		if refused := e.lostServe(); len(refused) > 0 {
			return p, e, refused
		}
	}
	m := &making{engine: e, now: now, at: now.UnixNano(), steps: make([]Step, len(s.Servers))}
	for g, x := range s.Regions {
		q, z := e.pools[g], e.places[g]
		t := RegionTotals{Name: x.Name, Capacity: int(q.total), Serving: int(q.serving), Floor: int(q.floor), AtOnce: z.width,
			Lead: max(z.lead, z.early) / int64(time.Second), Open: z.calendar.open(m.at), Spares: z.spares}
		if !t.Open {
			t.Opens = time.Unix(0, z.calendar.opens(m.at)).UTC()
		}
		p.Regions = append(p.Regions, t)
	}
	if e.train != nil {
		t := e.train.state()
		p.Train = &t
	}
	order := m.order()
	for _, i := range order {
		m.classify(i)
	}
	for _, i := range order {
		if m.steps[i].Due {
			m.decide(i)
		}
	}
	for _, i := range order {
		m.surgeOver(i)
	}
	p.Steps = make([]Step, len(order))
	for at, i := range order {
		p.Steps[at] = m.steps[i]
	}
	for g := range p.Regions {
		p.Regions[g].Due = e.places[g].waiting
	}
	return p, e, nil
}

// making is a plan on its way.
type making struct {
	*engine
	now   time.Time
	at    int64
	steps []Step              // by node
	out   map[string][]string // by region: who neither serves nor is in flight; filled when first asked for
}

// order puts servers that serve nobody for certain (new and revoked ones) first, then the earliest deadline.
func (m *making) order() []int32 {
	type key struct {
		rank     int8
		deadline int64
		node     int32
	}
	keys := make([]key, len(m.nodes))
	for i := range keys {
		n := &m.nodes[i]
		keys[i] = key{1, n.deadline, int32(i)}
		if n.state == isNew || n.is(cutOff) {
			keys[i].rank = 0
		}
	}
	slices.SortFunc(keys, func(a, b key) int {
		if a.rank != b.rank {
			return int(a.rank) - int(b.rank)
		}
		if a.deadline != b.deadline {
			return cmp.Compare(a.deadline, b.deadline)
		}
		return strings.Compare(m.s.Servers[a.node].Name, m.s.Servers[b.node].Name)
	})
	order := make([]int32, len(keys))
	for i, k := range keys {
		order[i] = k.node
	}
	return order
}

// classify says whether a server is to be rebuilt, and why or why not.
func (m *making) classify(i int32) {
	x, n, s := &m.s.Servers[i], &m.nodes[i], &m.steps[i]
	*s = Step{Server: x.Name, Region: x.Region, State: x.State, Epoch: x.Epoch, Capacity: x.Capacity, Deadline: x.Deadline}
	var wait Reason
	s.Reason, wait, s.Why = m.due(x, n)
	if wait != undecided {
		s.Reason = wait
		if n.state == isFlight {
			m.places[n.pool].waiting++
		}
		return
	}
	s.Due, s.Release, s.Standby = true, m.release(n), n.is(spare)
	m.places[n.pool].waiting++
}

// decide says whether a due server goes now.
func (m *making) decide(i int32) {
	s, n := &m.steps[i], &m.nodes[i]
	h := m.verdict(i, m.at)
	if h.reason != undecided {
		s.Reason, s.Why = h.reason, m.why(i, h)
		if h.waits && m.pools[h.pool].blocked < 0 && !n.gone() && !n.is(solo) {
			m.pools[h.pool].blocked = i
		}
		if h.reason == Floor || h.reason == RoleHeld {
			m.summon(n)
		}
		return
	}
	if h.forced {
		s.Why = fmt.Sprintf("%s, %s of open time are left before its deadline", s.Why, inWords(m.openLeft(n, m.at)))
		s.Reason = Forced
	}
	s.Now = true
	m.take(i, m.at, s.Standby)
}

// summon begins a spare of the region in which a floor holds a due server.
func (m *making) summon(held *node) {
	i := m.spareFor(held, m.at)
	if i < 0 {
		return
	}
	s := &m.steps[i]
	s.Due, s.Now, s.Reason, s.Release = true, true, Surge, m.release(&m.nodes[i])
	s.Why = "a floor of the region holds a server that is due"
	m.take(i, m.at, false)
}

// spareFor is the spare that comes for a server that a floor holds, or -1.
func (e *engine) spareFor(held *node, now int64) int32 {
	g := &e.places[held.pool]
	if g.spares >= e.r.MaxSpares && !guardOff("spares") || e.s.Paused || !g.calendar.open(now) && !e.forced(held, now) {
		return -1
	}
	for _, i := range g.standby {
		if h := e.verdict(i, now); h.reason == undecided {
			return i
		}
	}
	return -1
}

// surgeOver lets a spare leave when nothing of its region is due any more.
func (m *making) surgeOver(i int32) {
	s, n := &m.steps[i], &m.nodes[i]
	if !n.is(spare) || n.state != isServing || s.Due || s.Reason != Young || m.places[n.pool].waiting > 0 {
		return
	}
	s.Due, s.Standby, s.Reason, s.Why = true, true, SurgeOver, "nothing of its region is due any more"
	m.decide(i)
}

// due says why a server is to be rebuilt, or in wait why it is not.
func (m *making) due(x *Server, n *node) (why, wait Reason, text string) {
	r := &m.r
	switch {
	case n.is(withdrawn):
		return undecided, Held, "drained for an engineer until " + x.HeldUntil.UTC().Format(time.TimeOnly) + " UTC, then rebuilt"
	case x.State == inventory.Draining && x.Tainted:
		return undecided, Tainted, "an engineer was on it: it is wiped next"
	case n.state == isFlight:
		return undecided, InFlight, "begun, is carried on"
	case n.state == isQuarantined && !r.Retry:
		return undecided, Withheld, "kept out until `fleetctl rotate --retry`"
	case n.state == isStandby:
		return undecided, StandsBy, "off, until a floor holds a server of its region that is due"
	case r.Mode == Single && !n.is(asked):
		return undecided, NotAsked, "only servers that are named"
	}
	if r.Targets != nil {
		epoch, ok := r.Targets[x.Name]
		if !ok {
			return undecided, NotAsked, "the run began without it"
		}
		if x.Epoch > epoch {
			return undecided, Done, fmt.Sprintf("rebuilt: life %d, was %d", x.Epoch, epoch)
		}
	}
	left := func() string { return x.Deadline.Sub(m.now).Round(time.Second).String() + " before its deadline" }
	switch {
	case n.state == isNew:
		return First, undecided, "never booted by this controller"
	case n.state == isQuarantined:
		return Retried, undecided, "quarantined, another try was asked for"
	case n.is(live) && slices.Contains(r.Lost, x.Name):
		return undecided, LostHeard, "said to be dead, and was heard of as ready in the last " + FreshFor.String()
	case slices.Contains(r.Lost, x.Name):
		return Lost, undecided, "the operator says it is dead"
	case x.Revoked:
		return Revoked, undecided, "its ticket came twice: its life is revoked, nothing of it is believed"
	case n.deadline == unknown:
		return Unknown, undecided, "its deadline is not known"
	case Passed(x.Deadline, m.now):
		ago := m.now.Sub(x.Deadline).Round(time.Second).String()
		if n.is(live) {
			return Expired, undecided, "its deadline passed " + ago + " ago, and it was heard of since: a clock is wrong, it leaves as one that serves"
		}
		return Expired, undecided, "its deadline passed " + ago + " ago: it has ended itself"
	case r.Mode == Emergency:
		return Urgent, undecided, "asked for, over all limits, " + left()
	case r.Mode == Single:
		return Asked, undecided, "asked for by name, " + left()
	case m.runsBad(n):
		return RolledBack, undecided, fmt.Sprintf("release %d is bad, %d is what it boots", x.Release, m.release(n))
	case r.All || r.Mode == Everyone:
		return Repave, undecided, "asked for, " + left()
	}
	starts := m.starts(n)
	switch {
	case m.at >= starts:
		return Due, undecided, left()
	case m.upgrades(n):
		return Upgraded, undecided, fmt.Sprintf("release %d has reached it, it runs %d", m.s.Release, x.Release)
	case r.Targets != nil && r.Mode == Scheduled:
		return Repave, undecided, "asked for, " + left()
	case n.is(onTarget) && r.Mode == Upgrade:
		return undecided, Current, fmt.Sprintf("runs release %d already", x.Release)
	}
	return undecided, Young, "due in " + time.Duration(starts-m.at).Round(time.Second).String()
}

// runsBad reports whether a server runs a release that is bad, and there is another one to boot.
func (e *engine) runsBad(n *node) bool {
	if n.is(onBad) {
		return !n.is(onTarget) || e.s.boots() != e.s.Release
	}
	return e.train != nil && e.train.stopped && n.is(onTarget)
}

// upgrades reports whether a release comes to a server before its age makes it due.
func (e *engine) upgrades(n *node) bool {
	if n.is(onTarget) || n.is(spare) {
		return false
	}
	if e.train != nil {
		return e.train.reaches(n) && (e.r.Mode == Scheduled || e.r.Mode == Upgrade)
	}
	return e.r.Mode == Upgrade && e.s.boots() == e.s.Release
}

// lostServe refuses what an operator says of servers that were heard of as ready: one person's word takes no serving server out.
func (e *engine) lostServe() Refusals {
	var refused Refusals
	for i := range e.nodes {
		if x := &e.s.Servers[i]; e.nodes[i].is(live) && slices.Contains(e.r.Lost, x.Name) {
			refused = append(refused, Refusal{Code: LostServes, Region: x.Region,
				Detail: fmt.Sprintf("%s is not lost: it serves, and was heard of as ready in the last %s", x.Name, FreshFor)})
		}
	}
	refused.sort()
	return refused
}

// Serves reports whether a server takes users now: its state says so, its life is not over, and it was heard of as ready
// within FreshFor. What plans count as serving, people are shown as serving.
func (x Server) Serves(h Health, now time.Time) bool {
	heard, ok := h[x.Name]
	return x.State == inventory.Serving && !x.over(now) && ok && now.Sub(heard).Abs() <= FreshFor // one from the future says that a clock is wrong, not that it serves
}

// held reports whether an engineer may be on the server: until then nobody rebuilds it.
func (x Server) held(now time.Time) bool {
	return x.State == inventory.Draining && x.Tainted && now.Before(x.HeldUntil)
}

func (x Server) over(now time.Time) bool { return x.Revoked || Passed(x.Deadline, now) }

// Passed reports whether a life with this deadline is over. A deadline that is not known has not passed.
func Passed(deadline, now time.Time) bool { return !deadline.IsZero() && !now.Before(deadline) }

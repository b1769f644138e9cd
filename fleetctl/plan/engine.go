package plan

import (
	"cmp"
	"math"
	"slices"
	"time"

	"mayfly/inventory"
)

// phase is inventory.State in a byte; what is between leaving and serving again is one.
type phase uint8

const (
	isNew phase = iota
	isServing
	isFlight
	isQuarantined
	isStandby
)

// mark is something about a server that is true or not.
type mark uint32

const (
	bastionHost mark = 1 << iota
	controlHost
	internal
	spare
	live      // capacity that its region has: serves, was heard of, its life goes on
	ended     // its life is over for certain: deadline passed, revoked, or the operator says so
	withdrawn // drained for an engineer
	here      // this controller runs on it
	asked     // named in Targets or Only
	due       // waits to go (simulation)
	onTarget  // runs the release of the train, or in use
	onBad     // runs a release that is marked bad
	returning // in flight, and serves again at its end
	cutOff
	solo  // a bastion or a controller's host: goes one at a time
	boots // in flight, to the release of the train (simulation)
	fails // in flight, to quarantine (simulation)
)

// unknown is the deadline of a server whose deadline is not known.
const unknown = math.MinInt64

// node is a server while it is planned: as little as the decisions need, in one line of the processor's cache.
type node struct {
	deadline int64 // nanoseconds since 1970
	hash     uint64
	epoch    uint32
	capacity int32
	pool     int32 // its region's; the region's number
	role     int32 // its role's, or -1
	domain   [4]int32
	rank     int32  // in the train, or -1
	timer    uint32 // of the simulation: seconds since its start
	marks    mark
	state    phase
	attempts uint8 // of the boot under way (simulation)
	failed   uint8
}

// pool is capacity with a floor: a region's, or a role's within a region.
type pool struct {
	region  int32
	role    string
	floor   int64
	total   int64 // capacity of all its servers, spares left out
	serving int64 // capacity that serves and was heard of
	back    int64 // capacity in flight, that returns
	blocked int32 // head of the line that the rest waits for, or -1
	least   int32 // capacity of its smallest server
}

// domain is what a cap counts.
type domain struct {
	kind int8
	name string
	max  int32
	out  int32
	size int32

	parked int32 // servers that wait for it (simulation)
}

var kinds = [4]string{"rack", "switch", "bmc", "mirror"}

func (d Domains) of(kind int) string {
	return [4]string{d.Rack, d.Switch, d.BMC, d.Mirror}[kind]
}

// engine decides. Make fills one for each plan; a simulation keeps one.
type engine struct {
	s       Snapshot
	r       Rules
	nodes   []node
	pools   []pool // the regions', then the roles'
	places  []place
	domains []domain
	free    int
	left    []int64  // when servers left, for max_per_hour, oldest first from lefts on
	lefts   int      // index of the oldest that may still count
	out     [2]int32 // bastions and controllers that are not live
	train   *train
	turn    int64
	heard   bool // every server was just heard of, and health is nil
}

// place is a region beside its pool.
type place struct {
	calendar *calendar
	lead     int64 // open time that every server of it may have to wait
	hard     int64 // of that, what does not come from max_per_hour
	width    int
	early    int64   // a server is due that long before its deadline at the latest
	jitter   int64   // and up to so much sooner
	reach    int64   // open time, within which lead and all else that comes sooner have to be; 0: half an age bounds them
	roles    []int32 // its pools
	standby  []int32
	spares   int // that serve or are on their way to
	waiting  int // due, and not begun
}

// newEngine builds one for a moment; calendars reach to until. With refusals it is not to be used.
func newEngine(s Snapshot, r Rules, h Health, heard bool, now, until time.Time) (*engine, Refusals) {
	e := &engine{heard: heard, s: s, r: r, turn: int64(r.Turn()), free: r.MaxParallel}
	sh, refused := measure(s, r)
	if len(refused) > 0 {
		return e, refused
	}
	sh.calendars = calendars(s, r, now.Add(-r.MaxAge-24*time.Hour), until.Add(3*r.MaxAge+48*time.Hour))
	sh.far = until.Add(2 * r.MaxAge).UnixNano()
	if r.Mode != Emergency {
		if _, refused := sh.check(now, 2*r.MaxAge); len(refused) > 0 {
			return e, refused
		}
	}
	e.pools, e.domains = sh.pools, sh.domains
	e.places = sh.leads()
	for i := range e.pools {
		e.pools[i].blocked = -1
	}
	e.fill(h, now, sh)
	return e, nil
}

// fill makes the nodes and counts what is in service, in flight and out.
func (e *engine) fill(h Health, now time.Time, sh *shape) {
	named := map[string]bool{}
	for _, n := range e.r.Only {
		named[n] = true
	}
	lost := map[string]bool{}
	for _, n := range e.r.Lost {
		lost[n] = true
	}
	bad := map[uint64]bool{}
	for _, b := range e.s.Bad {
		bad[b] = true
	}
	e.nodes = sh.nodes
	for i := range e.s.Servers {
		x, n := &e.s.Servers[i], &e.nodes[i]
		n.epoch = uint32(x.Epoch)
		n.rank = -1
		n.deadline = unknown
		if !x.Deadline.IsZero() {
			n.deadline = x.Deadline.UnixNano()
		}
		n.set(here, e.s.Here != "" && x.Name == e.s.Here)
		n.set(cutOff, x.Revoked)
		n.set(onBad, x.Release != 0 && bad[x.Release])
		n.set(onTarget, x.Release == e.s.Release && x.Release != 0)
		n.set(withdrawn, x.held(now))
		n.set(asked, named[x.Name])
		heard, ok := now, true
		if h != nil || !e.heard {
			heard, ok = h[x.Name]
		}
		fresh := ok && now.Sub(heard).Abs() <= FreshFor || guardOff("fresh") && x.State == inventory.Serving
		over := x.over(now)
		if over && !e.heard && !x.Revoked && fresh && heard.Sub(x.Deadline) > FreshFor {
			over = false // heard of long after its end: the clock here was set forward, and it does serve
		}
		n.set(ended, over || lost[x.Name] && !fresh) // one that was heard of is not dead, whoever says so
		switch {
		case x.State == inventory.New:
			n.state = isNew
		case x.State == inventory.Quarantined:
			n.state = isQuarantined
		case x.State == inventory.Standby:
			n.state = isStandby
		case x.State.InFlight():
			n.state = isFlight
			n.set(returning, n.marks&withdrawn == 0)
		default:
			n.state = isServing
			n.set(live, fresh && n.marks&ended == 0)
		}
		e.count(int32(i), 1)
	}
	for i := range e.places {
		e.sortSpares(i)
	}
	for _, at := range e.s.Left {
		e.left = append(e.left, at.UnixNano())
	}
	slices.Sort(e.left)
	e.board(now)
}

// sortSpares puts the largest first.
func (e *engine) sortSpares(g int) {
	slices.SortFunc(e.places[g].standby, func(a, b int32) int {
		return cmp.Or(cmp.Compare(e.nodes[b].capacity, e.nodes[a].capacity), cmp.Compare(e.s.Servers[a].Name, e.s.Servers[b].Name))
	})
}

func (n *node) set(m mark, on bool) {
	if on {
		n.marks |= m
	} else {
		n.marks &^= m
	}
}

func (n *node) is(m mark) bool { return n.marks&m != 0 }

// gone reports whether a server takes nothing away by leaving: it does not serve, for certain.
func (n *node) gone() bool { return n.state != isServing || n.is(ended) }

// missing reports whether a cap counts a server as out.
func (n *node) missing() bool { return !n.is(live) && n.state != isStandby }

// count adds a server to what its pools and domains have (by 1), or takes it away (by -1).
func (e *engine) count(i int32, by int64) {
	n := &e.nodes[i]
	if n.state == isFlight && !n.is(withdrawn) {
		e.free -= int(by)
	}
	if !n.is(internal) {
		for _, p := range [2]int32{n.pool, n.role} {
			if p < 0 {
				continue
			}
			if n.is(live) {
				e.pools[p].serving += by * int64(n.capacity)
			} else if n.state == isFlight && n.is(returning) {
				e.pools[p].back += by * int64(n.capacity)
			}
		}
	}
	if n.missing() {
		for _, d := range n.domain {
			if d >= 0 {
				e.domains[d].out += int32(by)
			}
		}
		if n.is(bastionHost) {
			e.out[0] += int32(by)
		}
		if n.is(controlHost) {
			e.out[1] += int32(by)
		}
	}
	if n.is(spare) {
		g := &e.places[n.pool]
		switch {
		case n.state == isServing || n.state == isFlight && n.is(returning):
			g.spares += int(by)
		case n.state == isStandby && by > 0:
			g.standby = append(g.standby, i)
		case n.state == isStandby:
			g.standby = slices.DeleteFunc(g.standby, func(x int32) bool { return x == i })
		}
	}
}

// take begins a server's departure: it is in flight, and comes back unless it is to stand by.
func (e *engine) take(i int32, now int64, standby bool) {
	n := &e.nodes[i]
	planned := !n.gone()
	e.count(i, -1)
	n.state = isFlight
	n.set(live, false)
	n.set(ended, false)
	n.set(cutOff, false)
	n.set(returning, !standby)
	e.count(i, 1)
	if planned && e.r.MaxPerHour > 0 {
		e.left = append(e.left, now)
	}
}

// recent is how many have left in the hour before now.
func (e *engine) recent(now int64) int {
	for e.lefts < len(e.left) && e.left[e.lefts] <= now-int64(time.Hour) {
		e.lefts++
	}
	if e.lefts > 4096 && e.lefts > len(e.left)/2 {
		e.left, e.lefts = slices.Delete(e.left, 0, e.lefts), 0
	}
	return len(e.left) - e.lefts
}

// starts is when a server becomes due by its age: early enough to wait for its whole region and the whole fleet in open windows, and
// spread by a hash, so that what was booted together does not fall due together.
func (e *engine) starts(n *node) int64 {
	g := &e.places[n.pool]
	if guardOff("lead") {
		return n.deadline - e.turn/2
	}
	if g.reach > 0 {
		more := (g.reach - g.lead) / 2 // for what no arithmetic knows, and as much again for the spread
		at := g.lead + more
		if more > 0 && !guardOff("jitter") {
			at += int64(mix(n.hash^mix(uint64(n.epoch))) % uint64(more))
		}
		return g.calendar.back(n.deadline, at)
	}
	at := min(g.calendar.back(n.deadline, g.lead), n.deadline-g.early)
	// No sooner than half an age before its deadline, so that no server leaves twice while another one waits.
	if room := min(g.jitter, int64(e.r.MaxAge)/2-(n.deadline-at)); room > 0 && !guardOff("jitter") {
		at -= int64(mix(n.hash^mix(uint64(n.epoch))) % uint64(room))
	}
	return at
}

// open is the open time that is left before a server's deadline.
func (e *engine) openLeft(n *node, now int64) int64 {
	return e.places[n.pool].calendar.between(now, n.deadline)
}

// forced reports whether a server goes though a window is closed: less than a turn of open time is left before its deadline.
func (e *engine) forced(n *node, now int64) bool {
	return n.deadline != unknown && e.openLeft(n, now) < e.turn && !guardOff("force")
}

// pressed reports whether a server goes though max_per_hour have left: waiting longer, it could meet the other limits too late.
func (e *engine) pressed(n *node, now int64) bool {
	return n.deadline != unknown && e.openLeft(n, now) < e.places[n.pool].hard
}

// hashName is FNV-1a of 64 bits.
func hashName(name string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(name) {
		h = (h ^ uint64(name[i])) * 1099511628211
	}
	return h
}

// mix is the finalizer of SplitMix64: one bit changed changes half of them.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

package plan

import (
	"slices"
	"time"
)

// World is what a simulation draws: how each rotation ends.
type World interface {
	Boot(server int, release uint64, at int64) Ending
}

// Ending is how a rotation ends.
type Ending struct {
	After    time.Duration // until it serves, or is given up
	Failed   int           // boots that failed on the way
	Served   bool          // false: quarantined
	MendedIn time.Duration // after which it is tried again
}

// Event is something that happened in a simulation. All that a checker needs to work out the rest by itself.
type Event struct {
	At      time.Time
	Kind    string // "left", "serves", "quarantined", "stands_by", "expired", "due"
	Server  int
	Release uint64
	Forced  bool
	Gone    bool      // left, and took nothing away
	Ends    time.Time // serves: its deadline
}

// Player runs the engine on a virtual clock: it goes from one event to the next, and looks only at what the event may have changed. What it
// lets go is what Make would let go at that moment.
type Player struct {
	e     *engine
	world World
	start int64
	now   int64
	away  int64         // the controller is not there until then
	skew  time.Duration // of the controller's clock
	tell  func(Event)

	agenda  agenda
	lanes   []heap            // who waits, by lane: a region's servers, then those that no floor holds
	stuck   [][]int32         // by lane: passed over until something of the region changes
	parked  []heap            // by domain: who waits for its cap
	cands   heap              // lanes and domains that may have somebody to let go
	listed  []item            // by lane: its entry in cands; of nobody: none
	gone    heap              // who takes nothing away
	solos   []int32           // held by another bastion or controller
	rated   heap              // lanes that wait for max_per_hour
	israted []bool            // by lane
	rateAt  int64             // when max_per_hour has room, as far as it was looked for
	newly   []int32           // due since the last settling
	idle    []int32           // regions whose spares may stand by
	woken   []uint32          // by lane: the second of its next wake, 0 for none
	spares  map[int32][]int32 // of each region
	counts  tally
	Out     int // servers in flight
}

// Numbers of the agenda that are no server.
const (
	laneWake  = 1 << 31
	trainWake = 1<<32 - 1
	rateWake  = 1<<32 - 2
)

// NewPlayer begins at a moment with a fleet; every server that serves was just heard of. tell may be nil.
func NewPlayer(s Snapshot, r Rules, w World, start time.Time, length time.Duration, tell func(Event)) (*Player, Refusals) {
	e, refused := newEngine(s, r, nil, true, start, start.Add(length))
	if len(refused) > 0 {
		return nil, refused
	}
	n := 2 * len(s.Regions)
	p := &Player{e: e, world: w, start: start.UnixNano(), now: start.UnixNano(), tell: tell, spares: map[int32][]int32{},
		lanes: make([]heap, n), stuck: make([][]int32, n), parked: make([]heap, len(e.domains)), listed: make([]item, n), israted: make([]bool, n), woken: make([]uint32, n)}
	p.agenda.buckets = make([][]uint64, int(length/time.Second)/bucketSeconds+2)
	p.agenda.at, p.agenda.open = -1, p.fresh
	for l := range p.listed {
		p.listed[l].of = -1
	}
	p.counts.least, p.counts.at = make([]int64, len(e.places)), make([]int64, len(e.places))
	for g := range e.places {
		p.counts.least[g], p.counts.at[g] = e.pools[g].serving, p.now
	}
	for i := range e.nodes {
		if e.nodes[i].is(spare) {
			p.spares[e.nodes[i].pool] = append(p.spares[e.nodes[i].pool], int32(i))
		}
		p.enter(int32(i))
	}
	p.settle()
	return p, nil
}

// enter puts a server where it belongs at the beginning.
func (p *Player) enter(i int32) {
	n := &p.e.nodes[i]
	switch n.state {
	case isStandby:
	case isFlight:
		p.begin(i, p.e.release(n), false)
	case isNew:
		p.due(i)
	case isQuarantined:
		p.timer(i, p.now+int64(24*time.Hour))
	default:
		p.wait(i)
	}
}

// wait sets the timer of a server that serves, or finds it due.
func (p *Player) wait(i int32) {
	n := &p.e.nodes[i]
	if n.is(ended) || n.deadline == unknown || p.e.runsBad(n) || p.e.upgrades(n) || p.e.r.Mode == Everyone || p.e.r.Mode == Emergency {
		p.due(i)
		return
	}
	if at := p.e.starts(n); at > p.now {
		p.timer(i, at)
	} else {
		p.due(i)
	}
}

// second is a moment as the agenda counts, rounded up.
func (p *Player) second(at int64) uint32 {
	return uint32(min(max(0, (at-p.start+int64(time.Second)-1)/int64(time.Second)), 1<<31))
}

func (p *Player) timer(i int32, at int64) {
	p.e.nodes[i].timer = p.second(at)
	p.agenda.add(p.e.nodes[i].timer, uint32(i))
}

// lane is where a server waits.
func (p *Player) lane(n *node) int32 {
	if n.is(internal) || n.is(solo) {
		return n.pool + int32(len(p.e.places))
	}
	return n.pool
}

// due lets a server wait to go.
func (p *Player) due(i int32) {
	n := &p.e.nodes[i]
	if n.is(due) {
		return
	}
	n.set(due, true)
	n.timer = 0 // of its age, if a release came before that
	p.e.places[n.pool].waiting++
	if p.tell != nil {
		p.event("due", i)
	}
	if n.gone() {
		key := n.deadline
		if n.state == isNew || n.is(cutOff) {
			key = unknown
		}
		p.gone.push(item{key, i, 0})
		return
	}
	l := p.lane(n)
	p.lanes[l].push(item{n.deadline, i, 0})
	p.list(l)
	p.newly = append(p.newly, i)
}

// list says that a lane may have somebody to let go: its head. An older entry of the lane no longer counts.
func (p *Player) list(l int32) {
	if len(p.lanes[l]) == 0 {
		p.listed[l].of = -1
		return
	}
	head := p.lanes[l][0]
	if c := p.listed[l]; c.of == head.of && c.key == head.key {
		return
	}
	p.listed[l] = item{head.key, head.of, l}
	p.cands.push(p.listed[l])
}

// touch looks at a region again: something of it has changed.
func (p *Player) touch(g int32) {
	e := p.e
	e.pools[g].blocked = -1
	for _, k := range e.places[g].roles {
		e.pools[k].blocked = -1
	}
	for _, l := range [2]int32{g, g + int32(len(e.places))} {
		for _, i := range p.stuck[l] {
			if n := &e.nodes[i]; n.is(due) && !n.gone() {
				p.lanes[l].push(item{n.deadline, i, 0})
			}
		}
		p.stuck[l] = p.stuck[l][:0]
		p.list(l)
	}
	if e.places[g].spares > 0 && e.places[g].waiting == 0 {
		p.idle = append(p.idle, g)
	}
}

// park lets a server wait for a cap.
func (p *Player) park(d, i int32) {
	p.parked[d].push(item{p.e.nodes[i].deadline, i, 0})
	p.e.domains[d].parked++
}

// unpark lets those wait again who wait for a cap that has room.
func (p *Player) unpark(n *node) {
	for _, d := range n.domain {
		if d >= 0 && p.e.domains[d].parked > 0 {
			p.cands.push(item{p.parked[d][0].key, p.parked[d][0].of, int32(len(p.lanes)) + d})
		}
	}
}

// Run goes on until a moment.
func (p *Player) Run(until time.Time) {
	end := until.UnixNano()
	for {
		e, more := p.agenda.peek()
		at := p.start + int64(e>>32)*int64(time.Second)
		if !more || at > end {
			break
		}
		p.now = at
		for more && p.start+int64(e>>32)*int64(time.Second) == at {
			p.agenda.pop(e)
			p.happens(uint32(e))
			e, more = p.agenda.peek()
		}
		p.settle()
	}
	p.now = end
}

// fresh leaves out of a stretch of time the servers whose timers were set to another moment since. Reading them all at once, none of which waits for
// another, also brings their memory near: one by one, each would be waited for.
func (p *Player) fresh(bucket []uint64) []uint64 {
	kept, nodes := 0, p.e.nodes
	for _, e := range bucket {
		bucket[kept] = e
		if number := uint32(e); number >= laneWake || nodes[number].timer == uint32(e>>32) {
			kept++
		}
	}
	return bucket[:kept]
}

// happens does what the agenda says.
func (p *Player) happens(number uint32) {
	switch {
	case number == trainWake || number == rateWake:
		return // settle looks at them
	case number >= laneWake:
		l := int32(number - laneWake)
		if p.woken[l] == p.second(p.now) {
			p.woken[l] = 0
			p.touch(l % int32(len(p.e.places)))
		}
		return
	}
	i := int32(number)
	n := &p.e.nodes[i]
	if n.timer != p.second(p.now) {
		return // it was put off, or has gone
	}
	n.timer = 0
	switch {
	case n.state == isFlight && p.now < p.away:
		p.timer(i, p.away) // nobody is there who lets it in
	case n.state == isFlight:
		p.ends(i)
	case n.state == isServing && n.is(due):
		p.expire(i)
	default:
		p.due(i)
	}
}

// expire ends a life at its deadline.
func (p *Player) expire(i int32) {
	n := &p.e.nodes[i]
	p.e.count(i, -1)
	n.set(live, false)
	n.set(ended, true)
	p.e.count(i, 1)
	p.gone.push(item{n.deadline, i, 0})
	p.counts.passed++
	p.less(n.pool)
	if p.tell != nil {
		p.event("expired", i)
	}
	p.touch(n.pool)
}

// begin takes a server away, and draws how that ends.
func (p *Player) begin(i int32, release uint64, standby bool) {
	n := &p.e.nodes[i]
	ending := Ending{After: p.e.r.DrainLimit + WipeLimit, Served: true}
	if !standby {
		ending = p.world.Boot(int(i), release, p.now)
	}
	n.epoch++
	n.set(boots, p.e.train != nil && release == p.e.train.release || p.e.train == nil && release == p.e.s.Release)
	n.set(fails, !ending.Served)
	n.failed = uint8(min(ending.Failed, 255))
	n.attempts = n.failed
	if ending.Served {
		n.attempts++
	}
	if n.is(fails) {
		n.deadline = p.now + int64(ending.After+ending.MendedIn) // until then nobody tries it again
	}
	p.Out++
	p.counts.mostOut = max(p.counts.mostOut, p.Out)
	p.counts.failed += ending.Failed
	p.timer(i, p.now+int64(ending.After))
}

// ends brings a server back, or quarantines it.
func (p *Player) ends(i int32) {
	e, n := p.e, &p.e.nodes[i]
	standby := !n.is(returning)
	e.count(i, -1)
	p.Out--
	if n.is(due) {
		n.set(due, false)
		e.places[n.pool].waiting--
	}
	switch {
	case standby:
		n.state = isStandby
	case n.is(fails):
		n.state = isQuarantined
		p.counts.quarantined++
	default:
		p.counts.served++
		n.state = isServing
		n.set(live, true)
		n.set(onTarget, n.is(boots))
		n.set(onBad, false)
		n.deadline = p.now + int64(e.r.MaxAge-e.r.Bake)
	}
	e.count(i, 1)
	if t := e.train; t != nil && n.is(boots) && !standby {
		t.record(n.rank, int(n.attempts), int(n.failed), p.now)
	}
	if p.tell != nil {
		p.event(map[phase]string{isStandby: "stands_by", isQuarantined: "quarantined", isServing: "serves"}[n.state], i)
	}
	switch n.state {
	case isStandby:
		e.sortSpares(int(n.pool))
	case isQuarantined:
		p.timer(i, max(n.deadline, p.now+int64(time.Minute)))
	default:
		p.wait(i)
	}
	p.touch(n.pool)
	if n.state != isQuarantined {
		p.unpark(n)
		if n.is(solo) {
			for _, w := range p.solos {
				if x := &e.nodes[w]; x.is(due) && !x.gone() {
					p.lanes[p.lane(x)].push(item{x.deadline, w, 0})
					p.list(p.lane(x))
				}
			}
			p.solos = p.solos[:0]
		}
	}
}

func (p *Player) event(kind string, i int32) {
	n := &p.e.nodes[i]
	x := Event{At: time.Unix(0, p.now).UTC(), Kind: kind, Server: int(i)}
	if kind == "serves" {
		x.Ends = time.Unix(0, n.deadline).UTC()
		x.Release = p.e.s.Release
		if !n.is(onTarget) {
			x.Release = p.e.s.Good
		}
	}
	p.tell(x)
}

// Use brings another release into use: what ran through is the last good one, unless it was stopped.
func (p *Player) Use(release uint64) {
	e := p.e
	if t := e.train; t == nil || t.done {
		e.s.Good = e.s.Release
	} else if t.stopped {
		e.s.Bad = append(slices.Clone(e.s.Bad), t.release)
	}
	for i := range e.nodes {
		n := &e.nodes[i]
		if e.train != nil && !e.train.done {
			n.set(onBad, n.is(onTarget) || n.is(onBad))
		}
		n.set(onTarget, false)
		n.set(boots, false)
	}
	e.s.Release, e.s.Since = release, time.Unix(0, p.now)
	e.s.Trials = nil
	e.board(time.Unix(0, p.now))
	for i := range e.nodes {
		if n := &e.nodes[i]; n.state == isServing && (e.runsBad(n) || e.upgrades(n)) {
			p.due(int32(i))
		}
	}
	p.settle()
}

// Away takes the controller away until a moment.
func (p *Player) Away(until time.Time) {
	p.away = until.UnixNano()
	p.agenda.add(p.second(p.away), trainWake) // settles when it is back
}

// Skew sets the controller's clock forward, or back.
func (p *Player) Skew(by time.Duration) { p.skew = by }

// Train is the train as it is, and each stage as it ended; nil without one.
func (p *Player) Train() (now *TrainState, over []TrainState) {
	if p.e.train == nil {
		return nil, nil
	}
	t := p.e.train.state()
	return &t, p.e.train.history
}

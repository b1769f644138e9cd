package plan

import "time"

// Tally is what a simulation counts on the way.
type Tally struct {
	Served, Failed, Quarantined, Forced, Broken, Passed, MostOut int
	WorstAge                                                     time.Duration
	Regions                                                      []Least
	Done                                                         time.Time // when a train had reached everything
}

// Least is the worst moment of a region.
type Least struct {
	Capacity, Floor, Least int
	At                     time.Time
}

// tally counts while the player runs.
type tally struct {
	served, failed, quarantined, forced, broken, passed, mostOut int
	worst                                                        int64
	least                                                        []int64
	at                                                           []int64
	done                                                         int64
}

// Tally is what was counted so far.
func (p *Player) Tally() Tally {
	c := &p.counts
	t := Tally{Served: c.served, Failed: c.failed, Quarantined: c.quarantined, Forced: c.forced, Broken: c.broken, Passed: c.passed,
		MostOut: c.mostOut, WorstAge: time.Duration(c.worst)}
	for g := range p.e.places {
		q := &p.e.pools[g]
		t.Regions = append(t.Regions, Least{int(q.total), int(q.floor), int(c.least[g]), time.Unix(0, c.at[g]).UTC()})
	}
	if c.done > 0 {
		t.Done = time.Unix(0, c.done).UTC()
	}
	return t
}

// less notes what a region has, when it has become less.
func (p *Player) less(g int32) {
	if s := p.e.pools[g].serving; s < p.counts.least[g] {
		p.counts.least[g], p.counts.at[g] = s, p.now
	}
}

// Look is the fleet now: capacity that serves, as share of all; of the region that has the least, what serves over its floor, as share of its
// capacity; the age of the oldest server that serves; and how many are out.
func (p *Player) Look() (capacity, margin float64, age time.Duration, out int) {
	var serving, total int64
	margin = 1
	for g := range p.e.places {
		q := &p.e.pools[g]
		serving, total = serving+q.serving, total+q.total
		if q.total > 0 {
			margin = min(margin, float64(q.serving-q.floor)/float64(q.total))
		}
	}
	if total > 0 {
		capacity = float64(serving) / float64(total)
	}
	oldest := int64(1<<63 - 1)
	for i := range p.e.nodes {
		if n := &p.e.nodes[i]; n.is(live) && n.deadline != unknown && n.deadline < oldest {
			oldest = n.deadline
		}
	}
	if oldest < 1<<63-1 {
		age = p.e.r.MaxAge - time.Duration(oldest-p.now)
	}
	return capacity, margin, age, p.Out
}

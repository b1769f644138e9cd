package plan

import "time"

// hold is what keeps a due server, and where.
type hold struct {
	reason Reason // undecided: nothing, it goes
	pool   int32  // whose floor, or whose head of the line
	domain int32
	waits  bool // what is in flight mends it: the rest of the pool waits behind
	forced bool // it goes although a window is closed or max_per_hour is reached
}

// verdict says whether a due server may go now, as the counts are. Its order is part of the rules: what outranks comes first.
func (e *engine) verdict(i int32, now int64) hold {
	n := &e.nodes[i]
	h := hold{pool: n.pool, domain: -1}
	no := func(r Reason) hold { h.reason = r; return h }
	if e.s.Paused && !guardOff("pause") {
		return no(IsPaused)
	}
	if n.is(here) {
		return no(HereReason)
	}
	gone := n.gone()
	if n.is(solo) && !gone && !guardOff("bastion") {
		mine := int32(0) // a silent one is out itself
		if n.missing() {
			mine = 1
		}
		if n.is(bastionHost) && e.out[0]-mine > 0 {
			return no(Bastion)
		}
		if n.is(controlHost) && e.out[1]-mine > 0 {
			return no(Controller)
		}
	}
	emergency := e.r.Mode == Emergency
	if gone || emergency {
		if e.free <= 0 {
			return no(Parallel)
		}
		if n.state == isStandby && !emergency { // it is off, and leaves its domains with one more out
			if d := e.full(n); d >= 0 {
				h.domain = d
				return no(Capped)
			}
		}
		return h
	}
	g := &e.places[n.pool]
	if !g.calendar.open(now) {
		if !e.forced(n, now) {
			if g.calendar.blackout(now) != "" {
				return no(Blacked)
			}
			return no(Closed)
		}
		h.forced = true
	}
	behind := int32(-1)
	if !n.is(internal) && !n.is(solo) {
		for k, p := range [2]int32{n.pool, n.role} {
			if p < 0 || k == 0 && guardOff("floor") || k == 1 && guardOff("role_floor") {
				continue
			}
			q := &e.pools[p]
			left := q.serving
			if n.is(live) {
				left -= int64(n.capacity)
			}
			if left >= q.floor {
				continue
			}
			h.pool = p
			if left+q.back < q.floor {
				if k == 1 {
					return no(RoleHeld)
				}
				return no(Floor)
			}
			if behind < 0 {
				behind = p
			}
		}
		h.pool = n.pool
	}
	if e.free <= 0 {
		h.waits = true
		return no(Parallel)
	}
	if e.r.MaxPerHour > 0 && e.recent(now) >= e.r.MaxPerHour && !guardOff("rate") {
		if !e.pressed(n, now) {
			h.waits = true
			return no(RateLimit)
		}
		h.forced = true
	}
	if !n.is(internal) && !n.is(solo) && !guardOff("head") {
		for _, p := range [2]int32{n.pool, n.role} {
			if p >= 0 && e.pools[p].blocked >= 0 && e.pools[p].blocked != i {
				h.pool = p
				return no(Behind)
			}
		}
	}
	if behind >= 0 {
		h.pool, h.waits = behind, true
		return no(Behind)
	}
	if d := e.full(n); d >= 0 {
		h.domain = d
		return no(Capped)
	}
	return h
}

// full is a domain that has no room for one more out, or -1. One that is out already takes no more room.
func (e *engine) full(n *node) int32 {
	if n.missing() {
		return -1
	}
	for _, d := range n.domain {
		if d >= 0 && e.domains[d].out >= e.domains[d].max && !guardOff("cap_"+kinds[e.domains[d].kind]) {
			return d
		}
	}
	return -1
}

// release is what a server boots that leaves now.
func (e *engine) release(n *node) uint64 {
	t := e.train
	switch {
	case t == nil:
		return e.s.boots()
	case e.r.Mode == Emergency && !t.stopped:
		return t.release
	case t.reaches(n):
		return t.release
	}
	return t.from
}

// boots is what a server boots when there is no train.
func (s *Snapshot) boots() uint64 {
	for _, b := range s.Bad {
		if b == s.Release && !guardOff("bad") {
			return s.Good
		}
	}
	return s.Release
}

// early is a duration, in words, of so many nanoseconds.
func inWords(ns int64) string { return time.Duration(ns).Round(time.Second).String() }

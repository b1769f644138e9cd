package plan

import "time"

// settle lets go who may go now, earliest deadline first over the whole fleet, as Make does.
func (p *Player) settle() {
	if p.now < p.away {
		return
	}
	p.trainMoved()
	e, now := p.e, p.now+int64(p.skew)
	for e.free > 0 {
		fromGone := false
		var c item
		switch {
		case len(p.gone) > 0 && (len(p.cands) == 0 || p.gone[0].before(p.cands[0])):
			c, fromGone = p.gone.pop(), true
		case len(p.cands) > 0:
			c = p.cands.pop()
		default:
			c.of = -1
		}
		if len(p.rated) > 0 && (c.of < 0 || p.rated[0].before(c)) && e.recent(now) < e.r.MaxPerHour {
			switch {
			case c.of < 0:
			case fromGone:
				p.gone.push(c)
			default:
				p.cands.push(c)
			}
			l := p.rated.pop().id
			p.israted[l] = false
			p.list(l)
			continue
		}
		if c.of < 0 {
			break
		}
		switch {
		case fromGone:
			if n := &e.nodes[c.of]; n.is(due) && n.gone() && n.state != isFlight {
				if h := e.verdict(c.of, now); h.reason == undecided {
					p.leave(c.of, now, false)
				} else {
					p.solos = append(p.solos, c.of)
				}
			}
		case int(c.id) >= len(p.lanes):
			p.fromDomain(c, now)
		default:
			p.fromLane(c, now)
		}
	}
	if len(p.rated) > 0 && e.recent(now) >= e.r.MaxPerHour {
		if at := e.left[e.lefts] + int64(time.Hour); at != p.rateAt {
			p.rateAt = at
			p.agenda.add(max(p.second(at-int64(p.skew)), p.second(p.now)+1), rateWake)
		}
	}
	for _, g := range p.idle {
		p.standBy(g, now)
	}
	p.idle = p.idle[:0]
	for _, i := range p.newly { // who did not go at once ends at its deadline
		if n := &e.nodes[i]; n.is(due) && n.state == isServing && n.timer == 0 {
			p.timer(i, n.deadline)
		}
	}
	p.newly = p.newly[:0]
}

// fromLane tries the head of a lane.
func (p *Player) fromLane(c item, now int64) {
	e, l := p.e, c.id
	if p.listed[l].of != c.of || p.listed[l].key != c.key {
		return // another entry has come
	}
	p.listed[l].of = -1
	again := func() { p.list(l) }
	i := c.of
	n := &e.nodes[i]
	if len(p.lanes[l]) == 0 || p.lanes[l][0].of != i {
		again()
		return
	}
	if !n.is(due) || n.gone() || n.deadline != c.key {
		p.lanes[l].pop()
		again()
		return
	}
	h := e.verdict(i, now)
	switch h.reason {
	case undecided:
		p.lanes[l].pop()
		p.leave(i, now, h.forced)
		again()
	case Closed, Blacked:
		p.wake(l, min(e.places[n.pool].calendar.opens(now), p.forcedAt(n, now))-int64(p.skew))
	case RateLimit:
		if !p.israted[l] {
			p.israted[l] = true
			p.rated.push(item{n.deadline, i, l})
		}
		p.wake(l, p.pressedAt(n, now)-int64(p.skew))
	case Floor, RoleHeld:
		if s := e.spareFor(n, now); s >= 0 {
			p.e.places[n.pool].waiting++
			e.nodes[s].set(due, true)
			p.leave(s, now, false)
		}
		if h.reason == Floor && n.capacity <= e.pools[n.pool].least {
			return // no other one may go either
		}
		p.lanes[l].pop()
		p.stuck[l] = append(p.stuck[l], i)
		again()
	case Behind:
		if h.waits {
			e.pools[h.pool].blocked = i
		}
		if h.pool == n.pool {
			return
		}
		p.lanes[l].pop()
		p.stuck[l] = append(p.stuck[l], i)
		again()
	case Capped:
		p.lanes[l].pop()
		p.park(h.domain, i)
		again()
	case Parallel:
		again()
	default: // paused, another bastion, this controller's own host
		p.lanes[l].pop()
		p.solos = append(p.solos, i)
		again()
	}
}

// fromDomain tries who waits for a cap that has room again.
func (p *Player) fromDomain(c item, now int64) {
	e, d := p.e, c.id-int32(len(p.lanes))
	again := func() {
		if len(p.parked[d]) > 0 && e.domains[d].out < e.domains[d].max {
			p.cands.push(item{p.parked[d][0].key, p.parked[d][0].of, c.id})
		}
	}
	if len(p.parked[d]) == 0 {
		return
	}
	if p.parked[d][0].of != c.of {
		again()
		return
	}
	n := &e.nodes[c.of]
	if !n.is(due) || n.gone() || n.deadline != c.key {
		p.parked[d].pop()
		e.domains[d].parked--
		again()
		return
	}
	switch h := e.verdict(c.of, now); h.reason {
	case undecided:
		p.parked[d].pop()
		e.domains[d].parked--
		p.leave(c.of, now, h.forced)
		again()
	case Parallel:
		p.cands.push(c)
	case Capped:
		if h.domain == d {
			return
		}
		p.parked[d].pop()
		e.domains[d].parked--
		p.park(h.domain, c.of)
		again()
	default: // something of its region holds it: it waits there
		p.parked[d].pop()
		e.domains[d].parked--
		l := p.lane(n)
		p.lanes[l].push(item{n.deadline, c.of, 0})
		p.list(l)
		again()
	}
}

// leave begins a rotation.
func (p *Player) leave(i int32, now int64, forced bool) {
	e, n := p.e, &p.e.nodes[i]
	standby := n.is(spare) && n.state != isStandby
	gone := n.gone()
	release := e.release(n)
	if p.tell != nil {
		p.tell(Event{At: time.Unix(0, p.now).UTC(), Kind: "left", Server: int(i), Release: release, Forced: forced, Gone: gone})
	}
	if !gone {
		p.counts.worst = max(p.counts.worst, int64(e.r.MaxAge)-(n.deadline-p.now))
		if forced {
			p.counts.forced++
		}
	}
	e.take(i, now, standby)
	p.begin(i, release, standby)
	if !gone && !n.is(internal) && !n.is(solo) {
		p.less(n.pool)
		if q := &e.pools[n.pool]; q.serving < q.floor {
			p.counts.broken++
		}
	}
}

// standBy lets the spares of a region leave in which nothing is due any more.
func (p *Player) standBy(g int32, now int64) {
	e := p.e
	if e.places[g].waiting > 0 || e.places[g].spares == 0 {
		return
	}
	for i := range p.spares[g] {
		s := p.spares[g][i]
		n := &e.nodes[s]
		if n.state != isServing || n.is(due) {
			continue
		}
		switch h := e.verdict(s, now); h.reason {
		case undecided:
			n.set(due, true)
			e.places[g].waiting++
			p.leave(s, now, h.forced)
		case Closed, Blacked:
			p.wake(g, e.places[g].calendar.opens(now)-int64(p.skew))
		}
	}
}

// wake looks at a lane again at a moment.
func (p *Player) wake(l int32, at int64) {
	s := max(p.second(at), p.second(p.now)+1)
	if w := p.woken[l]; w == 0 || s < w || w <= p.second(p.now) {
		p.woken[l] = s
		p.agenda.add(s, laneWake+uint32(l))
	}
}

// forcedAt is when a closed window holds a server no longer.
func (p *Player) forcedAt(n *node, now int64) int64 {
	if n.deadline == unknown {
		return 1<<63 - 1
	}
	return max(now, p.e.places[n.pool].calendar.back(n.deadline, p.e.turn)+1)
}

// pressedAt is when max_per_hour holds a server no longer.
func (p *Player) pressedAt(n *node, now int64) int64 {
	if n.deadline == unknown {
		return 1<<63 - 1
	}
	g := &p.e.places[n.pool]
	return max(now, g.calendar.back(n.deadline, g.hard)+1)
}

// trainMoved lets those be due whom a train has reached, or who have to leave its release.
func (p *Player) trainMoved() {
	t := p.e.train
	if t == nil || t.told && (t.done || t.stopped) {
		return
	}
	from := t.reach
	if !t.began {
		from, t.began = 0, true
	}
	t.advance(p.now)
	if t.stopped {
		t.told = true
		for _, i := range t.order {
			if n := &p.e.nodes[i]; n.state == isServing && p.e.runsBad(n) {
				p.due(i)
			}
		}
		return
	}
	if t.told = t.done; t.done {
		p.counts.done = p.now
	}
	for _, i := range t.order[from:t.reach] {
		if n := &p.e.nodes[i]; n.state == isServing && p.e.upgrades(n) {
			p.due(i)
		}
	}
	if t.pending == 0 && !t.done && t.baked() > t.waked {
		t.waked = t.baked()
		p.agenda.add(max(p.second(t.waked), p.second(p.now)), trainWake)
	}
}

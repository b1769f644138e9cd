package plan

import (
	"fmt"
	"strings"
	"time"
)

// Explanation is why one server goes now, or why not.
type Explanation struct {
	Step  Step      `json:"step"`
	Rules []string  `json:"rules"`          // every rule that is looked at, with its numbers
	Early time.Time `json:"due,omitzero"`   // when it becomes due by its age
	Opens time.Time `json:"opens,omitzero"` // when its window opens next, if it is closed
	Late  time.Time `json:"late,omitzero"`  // when it goes at the latest, as long as nothing fails for good
	Zone  string    `json:"zone,omitempty"` // of its window
	Text  string    `json:"text"`           // all of it in words
}

// Explain says why a server goes now, or why not, with the numbers, and when it goes at the latest. False: no such server, or refusals.
func Explain(s Snapshot, r Rules, h Health, now time.Time, server string) (Explanation, Refusals, bool) {
	var x Explanation
	at := -1
	for i := range s.Servers {
		if s.Servers[i].Name == server {
			at = i
		}
	}
	p, _, refused := makePlan(s, r, h, now)
	if at < 0 || len(refused) > 0 {
		return x, refused, false
	}
	for _, step := range p.Steps {
		if step.Server == server {
			x.Step = step
		}
	}
	e, _ := newEngine(s, r, h, false, now, now) // as it was before anybody was let go
	n, t := &e.nodes[at], now.UnixNano()
	g := &e.places[n.pool]
	add := func(format string, args ...any) { x.Rules = append(x.Rules, fmt.Sprintf(format, args...)) }
	if n.deadline != unknown && n.state == isServing {
		starts := e.starts(n)
		x.Early = time.Unix(0, starts).UTC()
		// Due, it waits for no longer than its lead in open time.
		x.Late = time.Unix(0, min(n.deadline, e.after(g.calendar, max(starts, t), g.lead))).UTC()
		add("age: deadline %s, due from %s, %s of open time before it are kept for waiting", clock(g.calendar.zone, n.deadline), clock(g.calendar.zone, starts), inWords(g.lead))
	}
	for _, q := range [2]int32{n.pool, n.role} {
		if q < 0 || n.is(internal) || n.is(solo) {
			continue
		}
		what := "region " + s.Regions[n.pool].Name
		if role := e.pools[q].role; role != "" {
			what += ", role " + role
		}
		loses := int64(0)
		if n.is(live) {
			loses = int64(n.capacity)
		}
		v := e.pools[q]
		add("floor of %s: serving %d - %d = %d, floor %d, %d in flight", what, v.serving, loses, v.serving-loses, v.floor, v.back)
	}
	for _, d := range n.domain {
		if d >= 0 {
			v := e.domains[d]
			add("cap of %s %s: %d out, at most %d", kinds[v.kind], v.name, v.out, v.max)
		}
	}
	add("max_parallel: %d of %d are in flight", r.MaxParallel-e.free, r.MaxParallel)
	if r.MaxPerHour > 0 {
		add("max_per_hour: %d of %d have left in the last hour", e.recent(t), r.MaxPerHour)
	}
	if !g.calendar.always {
		x.Zone = g.calendar.zone.String()
		if g.calendar.open(t) {
			add("windows: open")
		} else {
			x.Opens = time.Unix(0, g.calendar.opens(t)).UTC()
			add("windows: closed until %s", e.clock(n, g.calendar.opens(t)))
		}
	}
	if e.train != nil {
		add("train: %s, stage %s reaches %d of %d servers, this one is number %d", e.train.verdict, e.train.state().Stage, e.train.reach, len(e.train.ended), n.rank+1)
	}
	if s.Paused {
		add("paused: nothing begins")
	}
	var b strings.Builder
	when := "does not go now"
	if x.Step.Now {
		when = "goes now"
	}
	fmt.Fprintf(&b, "%s %s: %s, %s\n", server, when, x.Step.Reason, x.Step.Why)
	for _, line := range x.Rules {
		b.WriteString("  " + line + "\n")
	}
	if !x.Late.IsZero() && !x.Step.Now {
		fmt.Fprintf(&b, "  it goes at %s at the latest, as long as nothing fails for good\n", clock(g.calendar.zone, x.Late.UnixNano()))
	}
	x.Text = b.String()
	return x, nil, true
}

// after is when so much open time has passed since a moment.
func (e *engine) after(c *calendar, from, open int64) int64 {
	if c.always {
		return from + open
	}
	want := c.upTo(from) + open
	for i, s := range c.spans {
		if length := s.to - s.from; c.before[i]+length >= want {
			return max(from, s.from+want-c.before[i])
		}
	}
	return c.horizon.to
}

package plan

import (
	"fmt"
	"math"
	"slices"
	"time"

	"mayfly/inventory"
)

// checker works out from the events alone what was true at each moment, and whether the rules were kept. It shares no arithmetic with the engine:
// windows are looked up on the wall clock, minute by minute, and the gate's bound is a sum of binomial terms.
type checker struct {
	s Snapshot
	r Rules

	phase    []string // "serving", "out", "off", "flight"
	deadline []time.Time
	on       []uint64
	boots    []uint64
	left     []time.Time // of planned removals
	flight   int
	begun    []int
	ended    []int
	region   map[string]int
	role     map[[2]string]int
	out      map[[2]string]int
	bastions int
	spares   map[string]int

	target            uint64
	reached           map[int]bool
	trials            int
	attempts, bad     int
	lastEnd           time.Time
	stopped, held     bool // held: undecided once, so that batches were drawn over the stage
	quarantined, away bool
	expired, forced   int
	rotations         int
	faults            []string
	world             *drawn
	passed            func() bool // the train has ended well: what fails from now on is no reason to stop it
}

func newChecker(s Snapshot, r Rules) *checker {
	n := len(s.Servers)
	c := &checker{s: s, r: r, phase: make([]string, n), deadline: make([]time.Time, n), on: make([]uint64, n), boots: make([]uint64, n),
		begun: make([]int, n), ended: make([]int, n), region: map[string]int{}, role: map[[2]string]int{}, out: map[[2]string]int{}, spares: map[string]int{}, reached: map[int]bool{}}
	for i, x := range s.Servers {
		c.deadline[i], c.on[i] = x.Deadline, x.Release
		switch x.State {
		case inventory.Serving:
			c.phase[i] = "serving"
			c.add(i, 1)
		case inventory.Standby:
			c.phase[i] = "off"
		default:
			c.phase[i] = "out"
			c.missing(i, 1)
		}
	}
	return c
}

func (c *checker) fault(e Event, format string, args ...any) {
	if len(c.faults) < 20 {
		c.faults = append(c.faults, e.At.Format(time.RFC3339)+" "+c.s.Servers[e.Server].Name+": "+fmt.Sprintf(format, args...))
	}
}

func (c *checker) add(i, by int) {
	x := c.s.Servers[i]
	if !x.Internal {
		c.region[x.Region] += by * x.Capacity
		c.role[[2]string{x.Region, x.Role}] += by * x.Capacity
	}
	if x.Spare {
		c.spares[x.Region] += by
	}
}

func (c *checker) missing(i, by int) {
	x := c.s.Servers[i]
	for k, name := range []string{x.Domains.Rack, x.Domains.Switch, x.Domains.BMC, x.Domains.Mirror} {
		c.out[[2]string{kinds[k], name}] += by
	}
	if x.Bastion {
		c.bastions += by
	}
}

// see takes one event in.
func (c *checker) see(e Event) {
	i, x := e.Server, c.s.Servers[e.Server]
	switch e.Kind {
	case "left":
		c.leaves(e, x)
	case "expired":
		c.expired++
		if c.phase[i] != "serving" {
			c.fault(e, "expired while %s", c.phase[i])
		}
		c.phase[i] = "out"
		c.add(i, -1)
		c.missing(i, 1)
	case "serves", "quarantined", "stands_by":
		if c.phase[i] != "flight" {
			c.fault(e, "%s while %s", e.Kind, c.phase[i])
		}
		c.ended[i]++
		c.flight--
		c.missing(i, -1)
		switch e.Kind {
		case "serves":
			c.phase[i], c.deadline[i], c.on[i] = "serving", e.Ends, c.boots[i]
			c.add(i, 1)
			c.rotations++
			if x.Spare && c.spares[x.Region] > c.r.MaxSpares {
				c.fault(e, "%d spares serve in %s", c.spares[x.Region], x.Region)
			}
		case "quarantined":
			c.phase[i] = "out"
			c.missing(i, 1)
			c.quarantined = true
		default:
			c.phase[i] = "off"
		}
		if c.target != 0 && c.boots[i] == c.target && e.Kind != "stands_by" {
			ending := c.world.last[i]
			c.attempts, c.bad, c.trials, c.lastEnd = c.attempts+ending.Failed, c.bad+ending.Failed, c.trials+1, e.At
			if ending.Served {
				c.attempts++
			}
			c.held = c.held || float64(c.bad) > c.r.Train.MaxErrors*float64(c.attempts)
			if !c.passed() && c.bad > 0 && c.tail() < (1-c.r.Train.Confidence)/float64(c.bad*c.bad)/1.6449340668482264 {
				c.stopped = true
			}
		}
	}
}

func (c *checker) leaves(e Event, x Server) {
	i := e.Server
	if c.phase[i] == "flight" {
		c.fault(e, "left while it was in flight")
	}
	gone := c.phase[i] != "serving"
	if gone != e.Gone {
		c.fault(e, "gone is %v, and it was %s", e.Gone, c.phase[i])
	}
	if !gone {
		c.add(i, -1)
		if !e.At.Before(c.deadline[i]) {
			c.fault(e, "served past its deadline %v", c.deadline[i])
		}
		if !x.Internal && !x.Bastion {
			for _, g := range c.s.Regions {
				if g.Name == x.Region && c.region[x.Region] < g.Floor {
					c.fault(e, "leaves %d in %s, floor %d", c.region[x.Region], x.Region, g.Floor)
				}
			}
			for _, f := range c.r.Floors {
				if f.Region == x.Region && f.Role == x.Role && c.role[[2]string{x.Region, x.Role}] < f.Mbps {
					c.fault(e, "leaves %d of role %s in %s, floor %d", c.role[[2]string{x.Region, x.Role}], x.Role, x.Region, f.Mbps)
				}
			}
		}
		if x.Bastion && c.bastions > 0 {
			c.fault(e, "a bastion leaves, %d are out", c.bastions)
		}
		c.timely(e, x)
	}
	was := c.phase[i]
	c.phase[i], c.boots[i] = "flight", e.Release
	c.flight++
	c.begun[i]++
	if c.flight > c.r.MaxParallel {
		c.fault(e, "%d are in flight", c.flight)
	}
	if was != "out" {
		c.missing(i, 1)
		for k, name := range []string{x.Domains.Rack, x.Domains.Switch, x.Domains.BMC, x.Domains.Mirror} {
			for _, cap := range c.r.Caps {
				if name != "" && cap.Domain == kinds[k] && (cap.Name == "" || cap.Name == name) && c.out[[2]string{kinds[k], name}] > cap.Max {
					c.fault(e, "cap: %d of %s %s are out, at most %d", c.out[[2]string{kinds[k], name}], kinds[k], name, cap.Max)
				}
			}
		}
	}
	if x.Spare && was == "off" && c.spares[x.Region] >= c.r.MaxSpares {
		c.fault(e, "a spare comes, %d serve in %s", c.spares[x.Region], x.Region)
	}
	if c.target != 0 && e.Release == c.target {
		c.reaches(e)
	}
}

// timely looks at windows, blackouts and the rate of a planned removal.
func (c *checker) timely(e Event, x Server) {
	if e.Forced {
		c.forced++
	}
	if !c.inside(x.Region, e.At) {
		if !e.Forced {
			c.fault(e, "left outside of its windows")
		}
		open := time.Duration(0)
		for at := e.At; at.Before(c.deadline[e.Server]); at = at.Add(time.Minute) {
			if c.inside(x.Region, at) {
				open += time.Minute
			}
		}
		if open > c.r.Turn()+5*time.Minute {
			c.fault(e, "left outside of its windows with %v of open time before its deadline", open)
		}
	}
	c.left = append(c.left, e.At)
	for e.At.Sub(c.left[0]) >= time.Hour {
		c.left = c.left[1:]
	}
	if c.r.MaxPerHour > 0 && len(c.left) > c.r.MaxPerHour && !e.Forced {
		c.fault(e, "%d left within an hour", len(c.left))
	}
}

// inside looks at the wall clock. Two minutes of grace are for steps of the controller's clock.
func (c *checker) inside(region string, at time.Time) bool {
	for _, b := range c.r.Blackouts {
		if of(b.Regions, region) && !at.Before(b.From) && at.Before(b.To) {
			return false
		}
	}
	any := false
	for _, w := range c.r.Windows {
		if !of(w.Regions, region) {
			continue
		}
		any = true
		local := at.In(c.s.Zones[w.Zone])
		if m := local.Hour()*60 + local.Minute(); slices.Contains(w.Days, local.Weekday()) && w.From <= m && m < w.To {
			return true
		}
	}
	return !any
}

// bounds are how many servers each stage of the train may have reached.
func (c *checker) bounds() []int {
	internal, others := 0, 0
	for _, x := range c.s.Servers {
		switch {
		case x.Spare:
		case x.Internal:
			internal++
		default:
			others++
		}
	}
	var all []int
	last := 0
	for _, b := range append([]int{internal, internal + min(c.r.Train.Canaries, others)}, func() (n []int) {
		for _, p := range c.r.Train.Steps {
			n = append(n, internal+int(math.Ceil(float64(others*p)/100)))
		}
		return n
	}()...) {
		if b > last {
			all, last = append(all, b), b
		}
	}
	return all
}

// reaches looks at a server that boots the release of the train for the first time.
func (c *checker) reaches(e Event) {
	if c.stopped {
		c.fault(e, "boots a release that is bad beyond doubt")
	}
	if c.s.Servers[e.Server].Spare || c.reached[e.Server] {
		return
	}
	c.reached[e.Server] = true
	before := 0
	for _, b := range c.bounds() {
		if len(c.reached) == b+1 && !c.held && (c.trials < b-(b-before+9)/10 || !c.lastEnd.IsZero() && e.At.Sub(c.lastEnd) < c.r.Train.Bake) {
			c.fault(e, "is beyond stage %d of %v: %d ended, the last %v ago", b, c.bounds(), c.trials, e.At.Sub(c.lastEnd))
		}
		before = b
	}
}

// tail is the chance of so many failed boots, or more, at the share that is allowed.
func (c *checker) tail() float64 {
	sum, p := 0.0, c.r.Train.MaxErrors
	for k := range c.bad {
		a, _ := math.Lgamma(float64(c.attempts + 1))
		b, _ := math.Lgamma(float64(k + 1))
		d, _ := math.Lgamma(float64(c.attempts - k + 1))
		sum += math.Exp(a - b - d + float64(k)*math.Log(p) + float64(c.attempts-k)*math.Log1p(-p))
	}
	return 1 - sum
}

// close looks at the end.
func (c *checker) close(end time.Time) {
	for i := range c.s.Servers {
		e := Event{At: end, Server: i}
		if open := c.begun[i] - c.ended[i]; open != 0 && (open != 1 || c.phase[i] != "flight") {
			c.fault(e, "%d rotations begun, %d ended, and it is %s", c.begun[i], c.ended[i], c.phase[i])
		}
	}
	if c.quarantined || c.away {
		return // more than the rules allow for
	}
	if c.expired > 0 {
		c.fault(Event{At: end}, "%d deadlines passed though nothing failed for good", c.expired)
	}
}

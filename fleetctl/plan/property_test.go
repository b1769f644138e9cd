package plan

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"mayfly/inventory"
)

// drawn is the world of the property tests: slow boots, boots that fail, BMCs that lie, bad releases.
type drawn struct {
	rnd             *rand.Rand
	r               Rules
	slow, wrong     float64
	target          uint64
	errors          float64
	last            map[int]Ending
	neverQuarantine bool
}

func (d *drawn) Boot(server int, release uint64, at int64) Ending {
	turn := d.r.Turn()
	e := Ending{After: turn/6 + time.Duration(d.rnd.Int64N(int64(turn/3))), MendedIn: time.Duration(1 + d.rnd.Int64N(int64(24*time.Hour)))}
	if d.rnd.Float64() < d.slow {
		e.After = turn
	}
	wrong := d.wrong
	if release == d.target && d.target != 0 {
		wrong += d.errors
	}
	for range d.r.Retries + 1 {
		if d.rnd.Float64() >= wrong {
			e.Served = true
			break
		}
		if d.neverQuarantine && e.Failed == d.r.Retries {
			e.Served = true
			break
		}
		e.Failed++
		e.After = turn // a failed boot, or an "off" that was not true, costs its whole limit
	}
	d.last[server] = e
	return e
}

var testZones = []string{"Europe/Stockholm", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", ""}

// trialRun draws a fleet with rules, plays it, and returns what the checker saw. Not ok: the rules were refused.
func trialRun(t testing.TB, seed uint64, big bool) (c *checker, ok bool) {
	rnd := rand.New(rand.NewPCG(seed, 6))
	begin := time.Date(2026, 3, 1+rnd.IntN(60), rnd.IntN(24), 0, 0, 0, time.UTC)
	r := Rules{MaxAge: time.Duration(48+rnd.IntN(120)) * time.Hour, MaxParallel: 2 + rnd.IntN(12), DrainLimit: time.Duration(rnd.IntN(6)) * time.Minute,
		BootLimit: time.Duration(2+rnd.IntN(6)) * time.Minute, Bake: time.Duration(rnd.IntN(5)) * time.Minute, Retries: rnd.IntN(2), MaxSpares: rnd.IntN(3)}
	s := Snapshot{Fleet: "f", Release: 7, Good: 7, Zones: map[string]*time.Location{"": time.UTC}}
	for _, z := range testZones[:4] {
		s.Zones[z] = zone(t, z)
	}
	regions, most := 1+rnd.IntN(4), 14
	if big {
		regions, most, r.MaxParallel, r.MaxAge = 40, 60, 400, 168*time.Hour
	}
	windowed, capped := rnd.IntN(2) == 0, rnd.IntN(2) == 0
	for g := range regions {
		name := fmt.Sprintf("r%02d", g)
		total, largest, exits, exit := 0, 0, 0, 0
		for k := range 3 + rnd.IntN(most) {
			x := Server{Name: fmt.Sprintf("%s-%02d", name, k), Region: name, Role: "vpn", Capacity: 100 * (1 + rnd.IntN(4)), State: inventory.Serving, Epoch: 1, Release: 7,
				Domains: Domains{Rack: fmt.Sprintf("%s-k%d", name, k/5), Switch: fmt.Sprintf("%s-s%d", name, k/9), BMC: fmt.Sprintf("b%d", g/2), Mirror: fmt.Sprintf("m%d", k%2)}}
			x.Deadline = begin.Add(r.MaxAge/2 + time.Duration(rnd.Int64N(int64(r.MaxAge/2))))
			if seed%3 == 0 { // booted together, long ago enough for the rules
				x.Deadline = begin.Add(r.MaxAge - time.Hour)
			}
			switch rnd.IntN(12) {
			case 0:
				x.Spare, x.State, x.Epoch, x.Deadline = true, inventory.Standby, 0, time.Time{}
			case 1:
				x.Internal = true
			case 2:
				x.Bastion, x.Role, x.Capacity = true, "bastion", 0
			case 3:
				x.State, x.Epoch, x.Deadline = inventory.New, 0, time.Time{}
			case 4, 5, 6:
				x.Role = "exit"
			}
			if !x.Spare && !x.Internal {
				total, largest = total+x.Capacity, max(largest, x.Capacity)
				if x.Role == "exit" {
					exits, exit = exits+x.Capacity, max(exit, x.Capacity)
				}
			}
			s.Servers = append(s.Servers, x)
		}
		s.Regions = append(s.Regions, Region{name, max(0, (total-largest)*(60+rnd.IntN(41))/100)})
		if exits > exit && rnd.IntN(2) == 0 {
			r.Floors = append(r.Floors, RoleFloor{name, "exit", (exits - exit) * (50 + rnd.IntN(51)) / 100})
		}
		if windowed {
			r.Windows = append(r.Windows, Window{Regions: []string{name}, Days: []time.Weekday{0, 1, 2, 3, 4, 5, 6}, From: 0, To: 60 * (8 + rnd.IntN(16)), Zone: testZones[rnd.IntN(5)]})
		}
	}
	if capped {
		r.Caps = []Cap{{Domain: "rack", Max: 1 + rnd.IntN(3)}, {Domain: "switch", Max: 2 + rnd.IntN(4)}, {Domain: "bmc", Max: 3 + rnd.IntN(20)}, {Domain: "mirror", Max: 4 + rnd.IntN(20)}}
	}
	if rnd.IntN(3) == 0 {
		r.MaxPerHour = 3 + rnd.IntN(12) + len(s.Servers)/10
	}
	if rnd.IntN(3) == 0 {
		at := begin.Add(time.Duration(rnd.IntN(200)) * time.Hour)
		r.Blackouts = []Blackout{{Name: "fair", From: at, To: at.Add(time.Duration(1+rnd.IntN(20)) * time.Hour)}}
	}
	if rnd.IntN(2) == 0 {
		r.Train = Train{Canaries: rnd.IntN(4), Steps: []int{10, 50, 100}, Bake: time.Duration(10+rnd.IntN(100)) * time.Minute, MaxErrors: 0.1, Confidence: 0.95}
	}
	w := &drawn{rnd: rnd, r: r, slow: rnd.Float64() * 0.5, last: map[int]Ending{}, neverQuarantine: rnd.IntN(2) == 0}
	if rnd.IntN(2) == 0 {
		w.wrong = rnd.Float64() * 0.05
	}
	c = newChecker(s, r)
	c.world = w
	c.passed = func() bool { return false }
	length := 4 * r.MaxAge
	if big {
		length = 13 * 7 * 24 * time.Hour
	}
	p, refused := NewPlayer(s, r, w, begin, length, c.see)
	if len(refused) > 0 {
		return c, false
	}
	c.passed = func() bool { return p.e.train != nil && p.e.train.done }
	p.Run(begin.Add(length / 4))
	if len(r.Train.Steps) > 0 {
		c.target, w.target = 8, 8
		if rnd.IntN(2) == 0 {
			w.errors = 0.3 + 0.6*rnd.Float64()
		}
		p.Use(8)
	}
	if rnd.IntN(3) == 0 { // the controller is away for a while
		c.away = true
		p.Run(begin.Add(length / 3))
		p.Away(begin.Add(length/3 + time.Duration(rnd.IntN(90))*time.Minute))
	}
	p.Run(begin.Add(length))
	if c.stopped {
		for i, v := range c.on {
			if v == 8 && c.phase[i] == "serving" && !c.quarantined && !s.Servers[i].Spare {
				c.fault(Event{At: begin.Add(length), Server: i}, "still runs the bad release")
			}
		}
	}
	c.close(begin.Add(length))
	return c, true
}

// TestProperties: random fleets with every rule, played with failures, and looked at by a checker that knows nothing of the engine.
func TestProperties(t *testing.T) {
	ran, rotations, stopped, forced := 0, 0, 0, 0
	weeks := 0.0
	for seed := range uint64(properties) {
		c, ok := trialRun(t, seed, false)
		if !ok {
			continue
		}
		ran++
		rotations, forced = rotations+c.rotations, forced+c.forced
		weeks += float64(len(c.s.Servers)) * 4 * c.r.MaxAge.Hours() / 168
		if c.stopped {
			stopped++
		}
		if len(c.faults) > 0 {
			t.Fatalf("seed %d: %q\nrules %+v", seed, c.faults[:min(len(c.faults), 4)], c.r)
		}
	}
	if ran < properties/5 || stopped < properties/100 {
		t.Errorf("got %d feasible fleets of %d, %d with a release that was stopped: the test says too little", ran, properties, stopped)
	}
	t.Logf("%d of %d fleets, %.0f server-weeks, %d rotations, %d releases stopped, %d overruled a window or the rate", ran, properties, weeks, rotations, stopped, forced)
}

// TestServerWeeks: fewer and larger fleets, for a quarter of a year each.
func TestServerWeeks(t *testing.T) {
	weeks, rotations, ran := 0, 0, 0
	for seed := uint64(0); weeks < serverWeeks && seed < 4000; seed++ {
		c, ok := trialRun(t, seed, true)
		if !ok {
			continue
		}
		ran++
		weeks += 13 * len(c.s.Servers)
		rotations += c.rotations
		if len(c.faults) > 0 {
			t.Fatalf("seed %d: %q\nrules %+v", seed, c.faults[:min(len(c.faults), 4)], c.r)
		}
	}
	if weeks < serverWeeks {
		t.Errorf("got %d server-weeks in %d feasible fleets, want %d", weeks, ran, serverWeeks)
	}
	t.Logf("%d server-weeks, %d rotations, %d fleets", weeks, rotations, ran)
}

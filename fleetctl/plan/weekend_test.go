package plan

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// weekend is a fleet that may be touched on Saturdays and Sundays only, six hours each, with an age of a week. Its turn is 12 minutes.
func weekend(t testing.TB, regions, servers, width int) (Snapshot, Rules) {
	r := Rules{MaxAge: 7 * 24 * time.Hour, MaxParallel: regions * servers, DrainLimit: 2 * time.Minute, BootLimit: 6 * time.Minute, Bake: 3 * time.Minute,
		Windows: []Window{{Days: []time.Weekday{time.Saturday, time.Sunday}, From: 60, To: 7 * 60, Zone: "Europe/Stockholm"}}}
	s := Snapshot{Fleet: "f", Release: 7, Good: 7, Zones: map[string]*time.Location{"Europe/Stockholm": zone(t, "Europe/Stockholm")}}
	for g := range regions {
		name := fmt.Sprintf("r%d", g)
		s.Regions = append(s.Regions, Region{name, 100 * (servers - width)})
		for k := range servers {
			x := serving(fmt.Sprintf("%s-%02d", name, k), name, 100, 0)
			x.Release = 7
			s.Servers = append(s.Servers, x)
		}
	}
	return s, r
}

// TestWeekend: what fits into half of the weekend's open time is accepted, one round more is refused, and so is what leaves an age without a window.
func TestWeekend(t *testing.T) {
	for _, tt := range []struct {
		name           string
		servers, width int
		change         func(*Rules)
		want           string // of the refusal; "" for none
	}{
		{"fits", 28, 1, nil, ""}, // 28 rounds of 12 minutes, and one of the fleet, are 5 h 48 min; half of 12 hours without the bake is 5 h 58 min 30 s
		{"one more", 29, 1, nil, WindowImpossible},
		{"two at once", 56, 2, nil, ""},
		{"three of two at once too many", 57, 2, nil, WindowImpossible},
		{"an age without Sunday", 5, 1, func(r *Rules) { r.MaxAge = 5 * 24 * time.Hour }, WindowImpossible},
		{"an age with one of both days", 13, 1, func(r *Rules) { r.MaxAge = 6 * 24 * time.Hour }, ""},
		{"that takes more", 14, 1, func(r *Rules) { r.MaxAge = 6 * 24 * time.Hour }, WindowImpossible},
		{"a weekend that is blacked out", 5, 1, func(r *Rules) {
			r.Blackouts = []Blackout{{Name: "fair", From: t0.Add(12 * time.Hour), To: t0.Add(60 * time.Hour)}}
		}, WindowImpossible},
		{"a slow rate", 20, 1, func(r *Rules) { r.MaxPerHour = 2 }, WindowImpossible},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, r := weekend(t, 1, tt.servers, tt.width)
			if tt.change != nil {
				tt.change(&r)
			}
			proof, refused := Check(s, r, t0)
			switch {
			case tt.want == "" && len(refused) > 0, tt.want != "" && (len(refused) == 0 || refused[0].Code != tt.want):
				t.Errorf("got %v, want %q", refused, tt.want)
			case tt.want != "" && tt.change == nil && !strings.Contains(refused[0].Change, "windows that end"):
				t.Errorf("got change %q, want longer windows", refused[0].Change)
			case tt.want == "" && !strings.Contains(proof[len(proof)-1].Sum, "of which half counts"):
				t.Errorf("got %+v", proof)
			}
			t.Log(refused, proof)
		})
	}
}

// weekendRun plays a random fleet with windows on weekends, for a quarter of a year with both changes of the clocks near.
func weekendRun(t testing.TB, seed uint64) (c *checker, ok bool) {
	rnd := rand.New(rand.NewPCG(seed, 12))
	begin := time.Date(2026, time.Month(2+7*rnd.IntN(2)), 1+rnd.IntN(28), rnd.IntN(24), 0, 0, 0, time.UTC)
	s, r := weekend(t, 1+rnd.IntN(3), 3+rnd.IntN(26), 1+rnd.IntN(2))
	r.MaxParallel = 2 + rnd.IntN(12)
	if rnd.IntN(3) == 0 {
		r.MaxAge = time.Duration(6*24+rnd.IntN(72)) * time.Hour
	}
	if rnd.IntN(3) == 0 {
		r.Caps = []Cap{{Domain: "rack", Max: 1 + rnd.IntN(2)}}
	}
	if rnd.IntN(3) == 0 {
		r.MaxPerHour = 5 + rnd.IntN(20)
	}
	if rnd.IntN(3) == 0 {
		r.Train = Train{Canaries: 2, Steps: []int{10, 100}, Bake: 30 * time.Minute, MaxErrors: 0.1, Confidence: 0.95}
	}
	for begin.Weekday() != time.Sunday {
		begin = begin.AddDate(0, 0, 1)
	}
	begin = begin.Truncate(24 * time.Hour).Add(7 * time.Hour)
	for i := range s.Servers { // all booted together, when the last weekend's window closed
		s.Servers[i].Domains.Rack, s.Servers[i].Deadline = fmt.Sprintf("%s-k%d", s.Servers[i].Region, i%4), begin.Add(r.MaxAge)
	}
	w := &drawn{rnd: rnd, r: r, slow: []float64{0, 1, 0.5, rnd.Float64()}[rnd.IntN(4)], last: map[int]Ending{}, neverQuarantine: true}
	c = newChecker(s, r)
	c.world, c.passed = w, func() bool { return false }
	const length = 13 * 7 * 24 * time.Hour
	p, refused := NewPlayer(s, r, w, begin, length, c.see)
	if len(refused) > 0 {
		return c, false
	}
	c.passed = func() bool { return p.e.train != nil && p.e.train.done }
	for week := range 13 { // quick weeks before slow ones are the worst
		if week%3 == 2 {
			w.slow = 1 - w.slow
		}
		p.Run(begin.Add(time.Duration(week) * 7 * 24 * time.Hour))
		if week == 6 && len(r.Train.Steps) > 0 {
			c.target, w.target = 8, 8
			p.Use(8)
		}
	}
	p.Run(begin.Add(length))
	c.close(begin.Add(length))
	return c, true
}

// TestWeekends: such fleets keep every promise whenever the rules were accepted.
func TestWeekends(t *testing.T) {
	ran, rotations, forced := 0, 0, 0
	for seed := range uint64(weekends) {
		c, ok := weekendRun(t, seed)
		if !ok {
			continue
		}
		ran++
		rotations, forced = rotations+c.rotations, forced+c.forced
		if len(c.faults) > 0 {
			t.Fatalf("seed %d: %q\nrules %+v", seed, c.faults[:min(len(c.faults), 4)], c.r)
		}
	}
	if ran < weekends/5 || ran == weekends {
		t.Errorf("got %d feasible fleets of %d: the test says too little", ran, weekends)
	}
	t.Logf("%d of %d fleets, %d rotations, %d overruled a window or the rate", ran, weekends, rotations, forced)
}

package simulate

import (
	"math/rand/v2"
	"slices"
	"time"

	"mayfly/fleetctl/plan"
)

// Run simulates. Rules that cannot be kept are refused.
func Run(c Config) (Result, plan.Refusals) {
	w := &world{c: c, rnd: rand.New(rand.NewPCG(c.Seed, 0x6d6179666c79)), turn: c.Rules.Turn(), errors: map[uint64]float64{}}
	for _, r := range c.Releases {
		w.errors[r.Version] = r.Errors
	}
	if w.c.Failures.Boot == 0 {
		w.c.Failures.Boot = w.turn / 3
	}
	if w.c.Failures.Mend == 0 {
		w.c.Failures.Mend = 24 * time.Hour
	}
	if w.c.Failures.Away == 0 {
		w.c.Failures.Away = 10 * time.Minute
	}
	end := c.Start.Add(c.length())
	p, refused := plan.NewPlayer(c.Snapshot, c.Rules, w, c.Start, c.length(), c.Trace)
	if len(refused) > 0 {
		return Result{}, refused
	}
	r := Result{Fleet: c.Snapshot.Fleet, Servers: len(c.Snapshot.Servers), Start: c.Start.UTC(), End: end.UTC(), Days: c.Days, Seed: c.Seed, MaxAge: c.Rules.MaxAge}
	for _, m := range w.moments(c, end) {
		p.Run(m.at)
		m.do(p, &r)
	}
	r.finish(p, c, w)
	return r, nil
}

// world draws how boots end.
type world struct {
	c      Config
	rnd    *rand.Rand
	turn   time.Duration
	errors map[uint64]float64
}

// Boot implements plan.World.
func (w *world) Boot(server int, release uint64, at int64) plan.Ending {
	f := &w.c.Failures
	bits := w.rnd.Uint64()
	e := plan.Ending{After: f.Boot/2 + f.Boot*time.Duration(bits&0xffff)/0x10000, MendedIn: f.Mend}
	if roll(bits>>16&0xffffff) < f.Slow {
		e.After = w.turn
	}
	if f.Fixed > 0 {
		e.After = f.Fixed
	}
	wrong := f.Failed + f.Lying + w.errors[release]
	if wrong == 0 {
		e.Served = true
		return e
	}
	each := w.c.Rules.BootLimit + plan.WipeLimit
	for range w.c.Rules.Retries + 1 {
		if roll(w.rnd.Uint64()>>40) >= wrong {
			e.Served = true
			break
		}
		e.Failed++
	}
	if e.Failed > 0 {
		e.After = min(w.turn, e.After+time.Duration(e.Failed)*each)
	}
	return e
}

// roll is 24 bits as a share.
func roll(bits uint64) float64 { return float64(bits) / (1 << 24) }

// moment is something that the simulation itself does.
type moment struct {
	at time.Time
	do func(*plan.Player, *Result)
}

func (w *world) moments(c Config, end time.Time) []moment {
	samples := c.Samples
	if samples == 0 {
		samples = 240
		if len(c.Snapshot.Servers) > 300_000 {
			samples = 120 // looking for the oldest server costs its time
		}
	}
	var all []moment
	for i := range samples + 1 {
		at := c.Start.Add(c.length() / time.Duration(samples) * time.Duration(i))
		all = append(all, moment{at, func(p *plan.Player, r *Result) { r.Samples = append(r.Samples, sample(p, at)) }})
	}
	for _, x := range c.Releases {
		all = append(all, moment{c.Start.Add(x.After), func(p *plan.Player, r *Result) {
			_, over := p.Train()
			r.Train = append(r.Train, over...)
			p.Use(x.Version)
		}})
	}
	any := func(n time.Duration) time.Duration { return time.Duration(w.rnd.Int64N(int64(max(n, 1)))) }
	for range c.Failures.Crashes {
		at := c.Start.Add(any(c.length()))
		until := at.Add(any(w.c.Failures.Away))
		all = append(all, moment{at, func(p *plan.Player, _ *Result) { p.Away(until) }})
	}
	for range c.Failures.Steps {
		at, by := c.Start.Add(any(c.length())), any(4*time.Minute)-2*time.Minute
		all = append(all, moment{at, func(p *plan.Player, _ *Result) { p.Skew(by) }})
	}
	slices.SortStableFunc(all, func(a, b moment) int { return a.at.Compare(b.at) })
	return append(all, moment{end, func(*plan.Player, *Result) {}})
}

func sample(p *plan.Player, at time.Time) Sample {
	capacity, margin, age, out := p.Look()
	return Sample{At: at.UTC(), Capacity: capacity, Margin: margin, Age: age, Out: out}
}

// finish takes over what the player counted.
func (r *Result) finish(p *plan.Player, c Config, w *world) {
	t := p.Tally()
	r.Rotations, r.Failures, r.Quarantines, r.Forced, r.Broken, r.Passed = t.Served, t.Failed, t.Quarantined, t.Forced, t.Broken, t.Passed
	r.WorstAge, r.MostOut, r.InFlight = t.WorstAge, t.MostOut, p.Out
	for i, g := range t.Regions {
		r.Regions = append(r.Regions, Region{Name: c.Snapshot.Regions[i].Name, Capacity: g.Capacity, Floor: g.Floor, Least: g.Least, LeastAt: g.At})
	}
	now, over := p.Train()
	r.Train = append(r.Train, over...)
	if now != nil && now.Verdict == plan.Ends {
		r.Done = t.Done
	}
}

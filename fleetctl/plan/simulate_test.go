package plan

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"mayfly/inventory"
)

// simulation runs the real planner on a virtual clock. Boots are slow and sometimes fail for good; the operator mends
// what is quarantined after a while.
type simulation struct {
	rnd    *rand.Rand
	s      Snapshot
	r      Rules
	now    time.Time
	ends   map[string]time.Time // when a server in flight is back, or is quarantined
	fails  map[string]bool
	mends  map[string]time.Time
	hurt   map[string]bool // regions that ever lost a server to quarantine
	broken float64         // share of rebuilds that fail
	turns  map[string]int
}

// TestPromises: planned removals never break a floor; no server serves past its deadline in a region where nothing
// failed; and every server is rebuilt again and again.
func TestPromises(t *testing.T) {
	ran := 0
	for seed := range uint64(fleets) {
		m := random(seed)
		if _, refused := Make(m.s, m.r, Health{}, m.now); len(refused) > 0 {
			continue
		}
		ran++
		if err := m.run(); err != nil {
			t.Fatalf("fleet %d: %v\nrules %+v\nregions %+v", seed, err, m.r, m.s.Regions)
		}
	}
	if ran < fleets/3 {
		t.Errorf("got %d feasible fleets of %d, want a third at least: the test says too little", ran, fleets)
	}
	t.Logf("%d of %d random fleets were feasible", ran, fleets)
}

func random(seed uint64) *simulation {
	rnd := rand.New(rand.NewPCG(seed, 1))
	m := &simulation{rnd: rnd, now: t0, ends: map[string]time.Time{}, fails: map[string]bool{}, mends: map[string]time.Time{},
		hurt: map[string]bool{}, turns: map[string]int{}}
	m.r = Rules{
		MaxAge:      time.Duration(6+rnd.IntN(160)) * time.Hour,
		MaxParallel: 1 + rnd.IntN(6),
		DrainLimit:  time.Duration(rnd.IntN(20)) * time.Minute,
		BootLimit:   time.Duration(1+rnd.IntN(20)) * time.Minute,
		Bake:        time.Duration(rnd.IntN(10)) * time.Minute,
		Retries:     rnd.IntN(3),
	}
	if rnd.IntN(2) == 0 {
		m.broken = rnd.Float64() * 0.2
	}
	together := rnd.IntN(3) == 0 // the whole fleet was booted at once
	for i := range 1 + rnd.IntN(4) {
		g := Region{Name: fmt.Sprintf("r%d", i)}
		total, largest := 0, 0
		for j := range 1 + rnd.IntN(8) {
			x := Server{Name: fmt.Sprintf("%s-%d", g.Name, j), Region: g.Name, Capacity: 100 * (1 + rnd.IntN(10)), State: inventory.Serving, Epoch: 1}
			x.Deadline = t0.Add(m.r.MaxAge)
			if !together {
				x.Deadline = t0.Add(m.r.MaxAge*time.Duration(j+1)/9 + m.r.MaxAge/2)
			}
			if rnd.IntN(5) == 0 {
				x.State, x.Epoch, x.Deadline = inventory.New, 0, time.Time{}
			}
			m.s.Servers = append(m.s.Servers, x)
			total, largest = total+x.Capacity, max(largest, x.Capacity)
		}
		if rest := total - largest; rest > 0 && rnd.IntN(6) > 0 {
			g.Floor = rest - rnd.IntN(rest+1)/2
		}
		m.s.Regions = append(m.s.Regions, g)
	}
	return m
}

func (m *simulation) run() error {
	end := m.now.Add(4 * m.r.MaxAge)
	for m.now.Before(end) {
		if err := m.step(); err != nil {
			return fmt.Errorf("at %v: %w", m.now.Sub(t0), err)
		}
		m.advance()
	}
	for _, x := range m.s.Servers {
		// Due half an age before its deadline at the earliest, so about 4 to 8 lives fit; a mended one loses some.
		if m.turns[x.Name] < 3 && !m.hurt[x.Region] || m.turns[x.Name] == 0 {
			return fmt.Errorf("%s was rebuilt %d times in 4 ages", x.Name, m.turns[x.Name])
		}
	}
	return nil
}

// step ends what is over, plans, checks the plan against the promises, and begins it.
func (m *simulation) step() error {
	r := m.r
	for i := range m.s.Servers {
		x := &m.s.Servers[i]
		if at, ok := m.ends[x.Name]; ok && !m.now.Before(at) {
			delete(m.ends, x.Name)
			if m.fails[x.Name] {
				x.State = inventory.Quarantined
				m.hurt[x.Region] = true
				m.mends[x.Name] = m.now.Add(time.Duration(m.rnd.Int64N(int64(m.r.MaxAge))))
				continue
			}
			x.State, x.Deadline = inventory.Serving, m.now.Add(m.r.MaxAge-m.r.Bake)
			m.turns[x.Name]++
		}
		if at, ok := m.mends[x.Name]; ok && !m.now.Before(at) {
			r.Retry = true
		}
	}
	h := Health{}
	before := map[string]int{}
	for _, x := range m.s.Servers {
		if x.State == inventory.Serving && m.now.Before(x.Deadline) {
			h[x.Name] = m.now
			before[x.Region] += x.Capacity
		}
		if x.State == inventory.Serving && !m.now.Before(x.Deadline) && !m.hurt[x.Region] && m.healthyFleet() {
			return fmt.Errorf("%s serves at its deadline though nothing failed", x.Name)
		}
	}
	p, refused := Make(m.s, r, h, m.now)
	if len(refused) > 0 {
		return refused
	}
	out := 0
	for _, s := range p.Steps {
		if s.Reason == InFlight || s.Now {
			out++
		}
	}
	if now := p.Now(); len(now) > 0 && out > r.MaxParallel {
		return fmt.Errorf("%d servers are out, max_parallel is %d", out, r.MaxParallel)
	}
	for _, s := range p.Now() {
		x := m.server(s.Server)
		if x.State == inventory.Serving && m.now.Before(x.Deadline) {
			before[x.Region] -= x.Capacity
			if floor := m.floor(x.Region); before[x.Region] < floor {
				return fmt.Errorf("removing %s leaves %d in %s, under the floor of %d", x.Name, before[x.Region], x.Region, floor)
			}
		}
		x.State = inventory.Draining
		x.Epoch++
		delete(m.mends, x.Name)
		m.fails[x.Name] = m.rnd.Float64() < m.broken
		m.ends[x.Name] = m.now.Add(1 + time.Duration(m.rnd.Int64N(int64(m.r.Turn()))))
		if m.rnd.IntN(3) == 0 {
			m.ends[x.Name] = m.now.Add(m.r.Turn()) // as slow as the rules allow
		}
	}
	return nil
}

// healthyFleet: max_parallel is shared, but a quarantined server holds no place in it; a hurt region can still keep a
// neighbour waiting for one turn more than the arithmetic knows, when an expired server is put in between.
func (m *simulation) healthyFleet() bool { return len(m.hurt) == 0 }

// advance goes to the next moment at which something can change.
func (m *simulation) advance() {
	next := m.now.Add(m.r.MaxAge / 20)
	sooner := func(at time.Time) {
		if at.After(m.now) && at.Before(next) {
			next = at
		}
	}
	for _, at := range m.ends {
		sooner(at)
	}
	for _, at := range m.mends {
		sooner(at)
	}
	for _, x := range m.s.Servers {
		sooner(x.Deadline)
	}
	m.now = next
}

func (m *simulation) server(name string) *Server {
	for i := range m.s.Servers {
		if m.s.Servers[i].Name == name {
			return &m.s.Servers[i]
		}
	}
	return nil
}

func (m *simulation) floor(name string) int {
	for _, g := range m.s.Regions {
		if g.Name == name {
			return g.Floor
		}
	}
	return 0
}

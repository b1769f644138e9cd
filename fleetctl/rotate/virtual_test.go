package rotate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"mayfly/fleetctl/plan"
	"mayfly/internal/pki"
	"mayfly/inventory"
	"mayfly/inventory/store"
	"mayfly/inventory/store/sqlite"
	"mayfly/policies"
	"mayfly/policies/bundle"
	"mayfly/rebuild/join"
	"mayfly/rebuild/power"
	"mayfly/rebuild/release"
)

// virtual is a fleet whose machines are in memory and whose clock is a bubble's: machines that are slow, fail, lie, and note what was done to them
// that must not be.
type virtual struct {
	b     *bundle.Bundle
	store store.Store
	ca    []byte

	mu       sync.Mutex // guards the rest
	rand     *rand.Rand
	machines map[string]*virtualMachine
	wrong    []string
	hurt     float64 // share of boots that go wrong
}

// virtualMachine is one of them.
type virtualMachine struct {
	f      *virtual
	name   string
	on     bool
	epoch  uint64
	newest uint64 // epoch that was ever booted
	boots  map[uint64]int
	ready  time.Time // when it joins; zero: never
	says   string    // reason that it reports instead
	sticks int       // so often it says that it went off, and stays on
}

func (f *virtual) Machine(s inventory.Server) (Machine, error) { return f.machine(s.Name), nil }

func (f *virtual) machine(name string) *virtualMachine {
	f.mu.Lock()
	defer f.mu.Unlock()
	m, ok := f.machines[name]
	if !ok {
		m = &virtualMachine{f: f, name: name, boots: map[uint64]int{}}
		f.machines[name] = m
	}
	return m
}

func (m *virtualMachine) Off(context.Context) error {
	m.f.mu.Lock()
	defer m.f.mu.Unlock()
	if m.sticks > 0 {
		m.sticks--
		return nil
	}
	m.on, m.epoch = false, 0
	return nil
}

func (m *virtualMachine) On(_ context.Context, b power.Boot) error {
	m.f.mu.Lock()
	defer m.f.mu.Unlock()
	if m.on && m.epoch == b.Epoch {
		return nil
	}
	if m.on {
		m.f.wrong = append(m.f.wrong, fmt.Sprintf("%s: life %d was booted over life %d", m.name, b.Epoch, m.epoch))
	}
	if b.Epoch < m.newest {
		m.f.wrong = append(m.f.wrong, fmt.Sprintf("%s: life %d was booted after life %d", m.name, b.Epoch, m.newest))
	}
	m.on, m.epoch, m.newest, m.says = true, b.Epoch, max(m.newest, b.Epoch), ""
	m.boots[b.Epoch]++
	if m.boots[b.Epoch] > 1 {
		m.f.wrong = append(m.f.wrong, fmt.Sprintf("%s: life %d was booted twice", m.name, b.Epoch))
	}
	m.ready = time.Now().Add(10*time.Second + time.Duration(m.f.rand.Int64N(int64(2*time.Minute))))
	if m.f.rand.Float64() < m.f.hurt {
		switch m.f.rand.IntN(4) {
		case 0:
			m.ready = time.Time{} // hangs
		case 1:
			m.says = "release_unsigned"
		case 2:
			m.sticks = 1 // a BMC that lies
		default:
			m.on, m.epoch = false, 0 // ends itself
		}
	}
	return nil
}

func (m *virtualMachine) SetBoot(context.Context, power.Boot) error { return nil }
func (m *virtualMachine) Joined(context.Context) error              { return nil }
func (m *virtualMachine) Console(context.Context) ([]byte, error) {
	return []byte("a last line\n"), nil
}

func (m *virtualMachine) Status(context.Context) (power.Status, error) {
	m.f.mu.Lock()
	defer m.f.mu.Unlock()
	return power.Status{On: m.on, Epoch: m.epoch}, nil
}

// newVirtual is a fleet of two regions, each of which may have one server out.
func newVirtual(t testing.TB, dir string, seed uint64, each int) *virtual {
	t.Helper()
	var names []string
	for i := range each {
		names = append(names, fmt.Sprintf("nl-%d", i+1), fmt.Sprintf("se-%d", i+1))
	}
	b := testBundle(names...)
	for i := range b.Inventory.Regions {
		b.Inventory.Regions[i].Floor.Mbps = 1000 * (each - 1)
	}
	b.Policy.Rotation = policies.Rotation{MaxAge: policies.Duration(24 * time.Hour), MaxParallel: each, DrainLimit: policies.Duration(20 * time.Second),
		BootLimit: policies.Duration(5 * time.Minute), Bake: policies.Duration(30 * time.Second), Retries: 3}
	s, err := sqlite.Open(t.Context(), filepath.Join(dir, "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	ca, _, err := pki.NewCA("lab.test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return &virtual{b: b, store: s, ca: ca, rand: rand.New(rand.NewPCG(seed, 1)), machines: map[string]*virtualMachine{}}
}

// runner is a rotate of this fleet in a process of its own.
func (f *virtual) runner(name string, p *process) *Runner {
	return &Runner{Store: through{f.store, p}, Bundle: f.b, Trust: []byte("{}"), CA: f.ca, Holder: Holder(name),
		Release:  Release{Statement: release.Statement{Version: 7}, Path: "/releases/7/"},
		Machines: hands{f, p}, Tickets: fakeTickets{}, Prober: fakeProber{}, Talk: fakeTalk{}, Poll: time.Second}
}

// serve plays servers and fleetctl serve until ctx ends.
func (f *virtual) serve(ctx context.Context, t testing.TB, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for ctx.Err() == nil {
		servers, err := f.store.Servers(ctx)
		if err == nil {
			err = f.turn(ctx, servers)
		}
		if err != nil && ctx.Err() == nil && !errors.Is(err, store.ErrStale) {
			t.Errorf("the world: %v", err)
			return
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

func (f *virtual) turn(ctx context.Context, servers []store.Server) error {
	var drains map[string]store.DrainOrder
	for _, s := range servers {
		now, m := time.Now(), f.machine(s.Name)
		f.mu.Lock()
		on, ready, says := m.on && m.epoch == s.Epoch, m.ready, m.says
		f.mu.Unlock()
		if !on {
			continue
		}
		var err error
		switch s.State {
		case inventory.Booting:
			if says != "" {
				err = f.store.BootFailed(ctx, s.Name, s.Epoch, says, "as the test says", now)
			} else if !ready.IsZero() && now.After(ready) {
				err = f.store.Joined(ctx, s.Name, s.Epoch, store.Joined{BootID: fmt.Sprintf("%s-%d", s.Name, s.Epoch), HostKey: "h", TunnelKey: "t", At: now, Deadline: now.Add(20 * time.Hour)})
			}
		case inventory.Draining:
			if drains == nil {
				if drains, err = f.store.Drains(ctx); err != nil {
					return err
				}
			}
			if _, ordered := drains[s.Name]; ordered && !s.Drained {
				err = f.store.SetDrained(ctx, s.Name, s.Epoch, false)
			}
		case inventory.Attesting, inventory.Baking, inventory.Serving:
			if now.Sub(s.HealthAt) >= 6*time.Second {
				var data []byte
				if data, err = json.Marshal(join.Health{BootID: s.BootID, Ready: true}); err == nil {
					err = f.store.SetHealth(ctx, s.Name, s.Epoch, data, now)
				}
			}
		}
		if err != nil && !errors.Is(err, store.ErrStale) {
			return err
		}
	}
	return nil
}

// repave is every server, now.
func (f *virtual) repave() plan.Rules {
	r := Rules(f.b.Inventory, f.b.Policy.Rotation, nil)
	r.All = true
	return r
}

// judge replays all transitions: no planned removal took a region under its floor, and what was begun has ended once.
func (f *virtual) judge(ctx context.Context, t testing.TB) {
	t.Helper()
	f.mu.Lock()
	for _, w := range f.wrong {
		t.Error(w)
	}
	f.mu.Unlock()
	state := map[string]inventory.State{}
	for after := int64(0); ; {
		events, err := f.store.Events(ctx, after)
		if err != nil {
			t.Fatal(err)
		}
		if len(events) == 0 {
			break
		}
		for _, e := range events {
			after = e.ID
			state[e.Server] = inventory.State(e.To)
			if e.From != string(inventory.Serving) {
				continue
			}
			region, capacity := f.b.Inventory.RegionOf(e.Server), 0
			for _, s := range f.b.Inventory.Servers {
				if state[s.Name] == inventory.Serving && f.b.Inventory.RegionOf(s.Name) == region {
					capacity += s.Capacity
				}
			}
			g, _ := f.b.Inventory.Region(region)
			if capacity < g.Floor.Mbps {
				t.Errorf("%s left (%s): region %s fell to %d, under its floor of %d", e.Server, e.Cause, region, capacity, g.Floor.Mbps)
			}
		}
	}
	servers, err := f.store.Servers(ctx)
	if err != nil {
		t.Fatal(err)
	}
	outcomes, err := f.store.Outcomes(ctx, "", time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	ended := map[oneLife]int{}
	for _, o := range outcomes {
		ended[oneLife{o.Server, o.Epoch}]++
		if o.Served && !o.Restarted {
			t.Errorf("%s: life %d counts without a restart", o.Server, o.Epoch)
		}
	}
	for _, s := range servers {
		if s.State != inventory.Serving && s.State != inventory.Quarantined {
			t.Errorf("%s is %s in the end", s.Name, s.State)
		}
		if m := f.machine(s.Name); s.State == inventory.Serving && (!m.on || m.epoch != s.Epoch) {
			t.Errorf("%s serves in life %d, and its machine is on: %v, in life %d", s.Name, s.Epoch, m.on, m.epoch)
		}
		if n := ended[oneLife{s.Name, s.Epoch}]; n != 1 {
			t.Errorf("%s: the rotation to life %d has ended %d times", s.Name, s.Epoch, n)
		}
	}
	if _, open, err := f.store.OpenRun(ctx); open || err != nil {
		t.Errorf("a run is open (%v), %v", open, err)
	}
	if claims, err := f.store.Claims(ctx, time.Now()); len(claims) > 0 || err != nil {
		t.Errorf("claims are left: %v, %v", claims, err)
	}
}

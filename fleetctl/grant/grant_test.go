package grant

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"mayfly/fleetctl/plan"
	"mayfly/inventory"
	"mayfly/inventory/store"
	"mayfly/inventory/store/sqlite"
)

var t0 = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC) // a Friday

// world is a fleet of four hosts in two racks, and one server that mayfly rebuilds.
type world struct {
	Ground
	now time.Time
}

func newWorld() *world {
	w := &world{now: t0}
	w.Fleet = inventory.Fleet{Name: "lab", Regions: []inventory.Region{{Name: "se"}}, Racks: []inventory.Rack{{Name: "a", Region: "se"}, {Name: "b", Region: "se"}}}
	for i := range 4 {
		w.Fleet.Servers = append(w.Fleet.Servers, inventory.Server{Name: fmt.Sprintf("box-%d", i), Role: inventory.RoleHost, Rack: string("aabb"[i]), Capacity: 500,
			Address: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), 24), Updates: inventory.UpdatesFleetLock, UpdateID: fmt.Sprintf("id-%d", i)})
	}
	w.Rules = plan.Rules{MaxAge: 24 * time.Hour, MaxParallel: 10, DrainLimit: time.Minute, BootLimit: 10 * time.Minute, Bake: time.Minute}
	w.Snapshot = plan.Snapshot{Fleet: "lab", Regions: []plan.Region{{Name: "se", Floor: 900}}, Servers: []plan.Server{{Name: "se-1", Region: "se", Role: inventory.RoleVPN,
		Capacity: 1000, Domains: plan.Domains{Rack: "a"}, State: inventory.Serving, Epoch: 3, Deadline: t0.Add(20 * time.Hour)}}, Zones: map[string]*time.Location{}}
	w.Health = plan.Health{"se-1": t0}
	return w
}

func (w *world) desk(t *testing.T, s Store, holder string) *Desk {
	return &Desk{Store: s, Holder: holder, Now: func() time.Time { return w.now },
		Ground: func(context.Context, time.Time) (Ground, error) { return w.Ground, nil }}
}

func open(t *testing.T) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func ask(t *testing.T, d *Desk, host string) Answer {
	t.Helper()
	a, err := d.Ask(t.Context(), host, inventory.UpdatesFleetLock)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestRules: each rule of the policy holds for hosts, by the same planner.
func TestRules(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(w *world)
		out    []string // let go before
		ask    string
		want   plan.Reason // "": it goes
	}{
		{"nobody is out", func(*world) {}, nil, "box-0", ""},
		{"another is out, and nothing forbids it", func(*world) {}, []string{"box-1"}, "box-0", ""},
		{"floor of role host", func(w *world) { w.Rules.Floors = []plan.RoleFloor{{Region: "se", Role: "host", Mbps: 1500}} }, nil, "box-0", ""},
		{"floor of role host, reached", func(w *world) { w.Rules.Floors = []plan.RoleFloor{{Region: "se", Role: "host", Mbps: 1500}} }, []string{"box-1"}, "box-0", plan.Behind},
		{"floor of others", func(w *world) { w.Rules.Floors = []plan.RoleFloor{{Region: "se", Role: "vpn", Mbps: 1000}} }, []string{"box-1"}, "box-0", ""},
		{"a floor that no host could leave", func(w *world) { w.Rules.Floors = []plan.RoleFloor{{Region: "se", Role: "host", Mbps: 2000}} }, nil, "box-0", plan.FloorImpossible},
		{"cap by rack", func(w *world) { w.Rules.Caps = []plan.Cap{{Domain: "rack", Max: 1}} }, []string{"box-1"}, "box-0", plan.Capped},
		{"cap by rack, another rack", func(w *world) { w.Rules.Caps = []plan.Cap{{Domain: "rack", Max: 1}} }, []string{"box-1"}, "box-2", ""},
		{"cap by rack, one of mayfly's servers is out", func(w *world) {
			w.Rules.Caps = []plan.Cap{{Domain: "rack", Max: 1}}
			w.Snapshot.Servers[0].State = inventory.Booting
		}, nil, "box-0", plan.Capped},
		{"max_parallel", func(w *world) { w.Rules.MaxParallel = 1 }, []string{"box-3"}, "box-0", plan.Parallel},
		{"max_parallel, one of mayfly's servers is out", func(w *world) {
			w.Rules.MaxParallel = 1
			w.Snapshot.Servers[0].State = inventory.Wiping
		}, nil, "box-0", plan.Parallel},
		{"window", func(w *world) {
			w.Rules.Windows = []plan.Window{{Days: []time.Weekday{time.Saturday}, From: 0, To: 1440}}
		}, nil, "box-0", plan.Closed},
		{"window, open", func(w *world) {
			w.Rules.Windows = []plan.Window{{Days: []time.Weekday{time.Friday}, From: 0, To: 1440}}
		}, nil, "box-0", ""},
		{"blackout", func(w *world) {
			w.Rules.Blackouts = []plan.Blackout{{Name: "fair", From: t0.Add(-time.Hour), To: t0.Add(time.Hour)}}
		}, nil, "box-0", plan.Blacked},
		{"paused", func(w *world) { w.Snapshot.Paused = true }, nil, "box-0", plan.IsPaused},
		{"a train of mayfly's release is nothing to hosts", func(w *world) {
			w.Snapshot.Release, w.Snapshot.Good, w.Snapshot.Since = 7, 6, t0
			w.Rules.Train = plan.Train{Canaries: 1, Steps: []int{10, 100}, Bake: time.Hour, MaxErrors: .1, Confidence: .95}
		}, nil, "box-0", ""},
	} {
		w := newWorld()
		d := w.desk(t, open(t), "c1")
		for _, host := range tt.out {
			if a := ask(t, d, host); !a.Granted {
				t.Fatalf("%s: %s: %+v", tt.name, host, a)
			}
		}
		tt.change(w)
		a := ask(t, d, tt.ask)
		if a.Granted != (tt.want == "") || !a.Granted && a.Reason != tt.want || a.Why == "" {
			t.Errorf("%s: got %+v, want %q", tt.name, a, tt.want)
		}
		if !a.Granted && len(tt.out) > 0 && !strings.Contains(a.Why, tt.out[0]) {
			t.Errorf("%s: %q does not say who is out", tt.name, a.Why)
		}
	}
}

// weak is a store that fails in the middle of a decision, or whose claim of the desk was lost meanwhile.
type weak struct {
	Store
	claims, renewals error
}

func (f *weak) Claim(ctx context.Context, server, holder string, ttl time.Duration, now time.Time) (store.Claim, error) {
	if f.claims != nil && server != deskName {
		return store.Claim{}, f.claims
	}
	return f.Store.Claim(ctx, server, holder, ttl, now)
}

func (f *weak) Renew(ctx context.Context, c store.Claim, ttl time.Duration, now time.Time) (store.Claim, error) {
	if f.renewals != nil {
		return store.Claim{}, f.renewals
	}
	return f.Store.Renew(ctx, c, ttl, now)
}

// TestAskAgainKeepsThePlace: whatever fails while a host that is out asks again, its place stays taken.
func TestAskAgainKeepsThePlace(t *testing.T) {
	for name, f := range map[string]*weak{"the store": {claims: errors.New("the store is away")}, "the desk's claim": {renewals: store.ErrFenced}} {
		for _, late := range []bool{false, true} {
			w := newWorld()
			w.Rules.Caps = []plan.Cap{{Domain: "rack", Max: 1}}
			whole := open(t)
			d := w.desk(t, whole, "c1")
			if a := ask(t, d, "box-0"); !a.Granted {
				t.Fatalf("got %+v", a)
			}
			if late {
				w.now = w.now.Add(limit(w.Rules) + time.Minute)
			}
			f.Store = whole
			if _, err := w.desk(t, f, "c1").Ask(t.Context(), "box-0", inventory.UpdatesFleetLock); err == nil && f.renewals != nil {
				t.Errorf("%s: got nil, want the failure", name)
			}
			if out, err := d.Out(t.Context()); err != nil || len(out) != 1 || out[0].Host != "box-0" {
				t.Errorf("%s fails, late %v: out are %+v, %v", name, late, out, err)
			}
			if a := ask(t, d, "box-1"); a.Granted {
				t.Errorf("%s fails, late %v: a second of rack a goes: %+v", name, late, a)
			}
		}
	}
}

// TestLease: asked again, the answer is the same; back is back; a host that never comes back blocks nobody, and still counts as gone.
func TestLease(t *testing.T) {
	w := newWorld()
	w.Rules.MaxParallel = 1
	d := w.desk(t, open(t), "c1")
	first := ask(t, d, "box-0")
	if !first.Granted || first.Until.Sub(t0) < leastTime {
		t.Fatalf("got %+v", first)
	}
	w.now = t0.Add(10 * time.Minute)
	if again := ask(t, d, "box-0"); !again.Granted || again.Reason != Already || !again.Until.Equal(first.Until) {
		t.Errorf("asked again: got %+v", again)
	}
	if a := ask(t, d, "box-1"); a.Granted || a.Reason != plan.Parallel || !strings.Contains(a.Why, "box-0 since 2026-11-20T12:00:00Z") {
		t.Errorf("another meanwhile: got %+v", a)
	}
	if was, err := d.Back(t.Context(), "box-0"); !was || err != nil {
		t.Errorf("back: got %v, %v", was, err)
	}
	if was, err := d.Back(t.Context(), "box-0"); was || err != nil {
		t.Errorf("back again: got %v, %v", was, err)
	}
	if a := ask(t, d, "box-1"); !a.Granted {
		t.Errorf("after it is back: got %+v", a)
	}
	w.now = w.now.Add(limit(w.Rules)) // box-1 never comes back
	if out, err := d.Out(t.Context()); err != nil || len(out) != 1 || !out[0].Overdue || out[0].Protocol != inventory.UpdatesFleetLock {
		t.Errorf("got %+v, %v", out, err)
	}
	w.Rules.Floors = []plan.RoleFloor{{Region: "se", Role: "host", Mbps: 1500}}
	if a := ask(t, d, "box-2"); a.Granted || a.Reason != plan.RoleHeld {
		t.Errorf("the floor is given away to a host that died: %+v", a)
	}
	w.Rules.Floors = nil
	if a := ask(t, d, "box-2"); !a.Granted {
		t.Errorf("a host that died blocks another: %+v", a)
	}
	if _, err := d.Back(t.Context(), "box-2"); err != nil {
		t.Fatal(err)
	}
	w.Snapshot.Paused = true
	if a := ask(t, d, "box-1"); a.Granted {
		t.Errorf("a host whose time is over goes again without a decision: %+v", a)
	}
	w.now = w.now.Add(forget)
	if out, err := d.Out(t.Context()); err != nil || len(out) != 0 {
		t.Errorf("after %v: got %+v, %v", forget, out, err)
	}
}

// TestOnePlace: many hosts ask two controllers at once, and one place is given away once.
func TestOnePlace(t *testing.T) {
	w := newWorld()
	w.Rules.MaxParallel = 1
	s := open(t)
	desks := []*Desk{w.desk(t, s, "c1"), w.desk(t, s, "c2")}
	var wg sync.WaitGroup
	var mu sync.Mutex
	granted := 0
	for i := range 16 {
		wg.Go(func() {
			host := fmt.Sprintf("box-%d", i%4)
			a, err := desks[i%2].Ask(t.Context(), host, inventory.UpdatesFleetLock)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
			}
			if a.Granted && a.Reason != Already {
				granted++
			}
		})
	}
	wg.Wait()
	if granted > 1 {
		t.Errorf("one place was given away %d times", granted)
	}
	if a := ask(t, desks[0], "box-0"); granted == 0 && !a.Granted {
		t.Errorf("nobody got the place: %+v", a)
	}
}

// stopped is a store whose user is stopped just before it writes a lease down, for long enough that another controller decides.
type stopped struct {
	Store
	meanwhile func()
}

func (s *stopped) Claim(ctx context.Context, server, holder string, ttl time.Duration, now time.Time) (store.Claim, error) {
	if strings.HasPrefix(server, leaseName) && s.meanwhile != nil {
		do := s.meanwhile
		s.meanwhile = nil
		do()
	}
	return s.Store.Claim(ctx, server, holder, ttl, now)
}

// TestStoppedWhileDeciding: a controller that was stopped between decision and lease gives nothing away when it goes on.
func TestStoppedWhileDeciding(t *testing.T) {
	w := newWorld()
	w.Rules.MaxParallel = 1
	s := open(t)
	second := w.desk(t, s, "c2")
	slow := &stopped{Store: s}
	first := w.desk(t, slow, "c1")
	slow.meanwhile = func() {
		w.now = w.now.Add(deskTTL + time.Second)
		if a := ask(t, second, "box-1"); !a.Granted {
			t.Errorf("the second controller: %+v", a)
		}
	}
	if a, err := first.Ask(t.Context(), "box-0", inventory.UpdatesFleetLock); !errors.Is(err, store.ErrFenced) || a.Granted {
		t.Errorf("got %+v, %v, want nothing given away, and %v", a, err, store.ErrFenced)
	}
	out, err := second.Out(t.Context())
	if err != nil || len(out) != 1 || out[0].Host != "box-1" {
		t.Errorf("got %+v, %v, want box-1 alone out", out, err)
	}
	slow.meanwhile = nil
	if _, err := second.Back(t.Context(), "box-1"); err != nil {
		t.Fatal(err)
	}
	slow.meanwhile = func() { // another holds the desk when this one asks
		if _, err := s.Claim(t.Context(), deskName, "c3", deskTTL, w.now); !errors.Is(err, store.ErrClaimed) {
			t.Errorf("two decide at once: %v", err)
		}
	}
	if a := ask(t, first, "box-0"); !a.Granted {
		t.Errorf("got %+v", a)
	}
	if _, err := s.Claim(t.Context(), deskName, "c3", deskTTL, w.now); err != nil {
		t.Fatal(err)
	}
	if a := ask(t, second, "box-2"); a.Granted || a.Reason != Busy {
		t.Errorf("while another decides: got %+v", a)
	}
}

package rotate

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"mayfly/fleetctl/plan"
	"mayfly/inventory"
	"mayfly/inventory/store"
	"mayfly/policies"
	"mayfly/rebuild/power"
	"mayfly/rebuild/release"
)

// faulty machines fail where a test says so.
type faulty struct {
	fakeMachines
	off, status func(server string) error
}

type faultyMachine struct {
	Machine
	name string
	f    faulty
}

func (f faulty) Machine(s inventory.Server) (Machine, error) {
	m, err := f.fakeMachines.Machine(s)
	return faultyMachine{m, s.Name, f}, err
}

func (m faultyMachine) Off(ctx context.Context) error {
	if m.f.off != nil {
		if err := m.f.off(m.name); err != nil {
			return err
		}
	}
	return m.Machine.Off(ctx)
}

func (m faultyMachine) Status(ctx context.Context) (power.Status, error) {
	if m.f.status != nil {
		if err := m.f.status(m.name); err != nil {
			return power.Status{}, err
		}
	}
	return m.Machine.Status(ctx)
}

// TestStatusUnread: a BMC that does not answer while a healthy life boots, attests and bakes says nothing of the life: it serves at the first attempt.
func TestStatusUnread(t *testing.T) {
	b := testBundle("nl-1")
	b.Policy.Rotation.Retries = 0
	b.Policy.Rotation.Bake = policies.Duration(100 * time.Millisecond)
	dir, w := serving(t, b)
	r := testRunner(t, dir, b)
	defer r.Store.Close()
	var mu sync.Mutex
	asked := map[inventory.State]int{}
	r.Machines = faulty{fakeMachines: fakeMachines{dir}, status: func(name string) error {
		s, err := w.store.Server(context.Background(), name)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		asked[s.State]++
		if s.State == inventory.Baking || s.State == inventory.Booting && asked[s.State] < statusTries {
			return errors.New("dial tcp 192.0.2.9:443: i/o timeout")
		}
		return nil
	}}
	result, err := r.Run(t.Context(), all(b))
	if err != nil || result.Result != "done" || w.boots(t, "nl-1") != 2 || result.Servers[0].Attempts != 1 {
		t.Errorf("got %+v, %v, want one attempt", result, err)
	}
	if asked[inventory.Booting] < statusTries || asked[inventory.Baking] == 0 {
		t.Errorf("the machine was asked %v: nothing was tried", asked)
	}
}

// TestSilence: a server is silent when others were heard meanwhile; where nobody was, the controller is deaf, and all get the time to come back.
func TestSilence(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	const limit = 5 * time.Minute
	fresh := int(plan.FreshFor / time.Second)
	x := silence{until: at(fresh)}
	over := func(mine, others, now int) bool { return !at(now).Before(x.end(at(mine), at(others), at(now), limit)) }
	for now := fresh; now < 120; now++ { // serve is down
		if over(0, 5, now) {
			t.Fatalf("%d s after it was heard, and nobody else either, it is called silent", now)
		}
	}
	if over(0, 120, 120) || over(0, 122, 122) {
		t.Error("another one is back a moment sooner, and it is called silent")
	}
	if !over(0, 120+fresh, 120+fresh) {
		t.Error("all others are back and it stays silent: it is not said")
	}
	x = silence{until: at(fresh)}
	if end := int(limit / time.Second); over(0, 5, end-1) || !over(0, 5, end) {
		t.Error("where nobody else is there to be heard, silence has no end, or not that of the boot")
	}
	if got := lastHeard([]store.Server{{Name: "a", HealthAt: at(1)}, {Name: "b", HealthAt: at(3)}, {Name: "c", HealthAt: at(2)}}); got != [2]voice{{"b", at(3)}, {"c", at(2)}} {
		t.Errorf("heard last: got %v", got)
	}
}

// TestUnbootableRelease: a release that may not boot any more keeps servers from leaving; one that has booted before still comes to its end.
func TestUnbootableRelease(t *testing.T) {
	b := testBundle("se-1", "se-2", "nl-1")
	b.Policy.Rotation.Bake = policies.Duration(100 * time.Millisecond)
	dir, w := serving(t, b)
	r := testRunner(t, dir, b)
	defer r.Store.Close()
	now := time.Now()
	r.Release = Release{Statement: release.Statement{Version: 8}, Data: []byte("8"), Path: "/releases/8/"}
	r.Releases = func(v uint64) (Release, error) {
		return Release{}, fmt.Errorf("release %d is older than min_version", v)
	}
	s, err := w.store.Server(t.Context(), "nl-1")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.store.Move(t.Context(), "nl-1", s.Epoch, inventory.Serving, inventory.Draining, "test", now); err != nil {
		t.Fatal(err)
	}
	epoch, err := w.store.BeginLife(t.Context(), "nl-1", s.Epoch, inventory.Draining, "test", now, nil)
	m := fakeMachine{filepath.Join(dir, "nl-1.machine")}
	if err = errors.Join(err, m.Off(t.Context()),
		r.Store.MarkRelease(t.Context(), store.Mark{Version: 7, Digest: "7", Mark: store.Good, At: now}),
		r.Store.UseRelease(t.Context(), store.Use{Version: 8, Digest: "8", At: now}),
		r.Store.MarkRelease(t.Context(), store.Mark{Version: 8, Digest: "8", Mark: store.Bad, Why: "test", At: now}),
		w.store.Move(t.Context(), "nl-1", epoch, inventory.Wiping, inventory.Booting, "test", now),
		w.store.SetRelease(t.Context(), "nl-1", epoch, "7"),
		m.On(t.Context(), power.Boot{Epoch: epoch, Ticket: []byte("x"), TicketSig: []byte("x")})); err != nil {
		t.Fatal(err)
	}
	result, err := r.Run(t.Context(), all(b))
	if s, e := w.store.Server(t.Context(), "nl-1"); e != nil || s.State != inventory.Serving || s.Epoch != epoch {
		t.Errorf("nl-1 is %s in life %d, %v, want serving in %d", s.State, s.Epoch, e, epoch)
	}
	if err == nil || w.boots(t, "se-1")+w.boots(t, "se-2") != 2 {
		t.Errorf("got %+v, %v: nothing can boot", result, err)
	}
}

// TestRestBetweenWipes: a wipe that fails is tried again after a rest, each longer than the one before.
func TestRestBetweenWipes(t *testing.T) {
	b := testBundle("nl-1")
	b.Policy.Rotation.Retries = 3
	dir, w := serving(t, b)
	r := testRunner(t, dir, b)
	defer r.Store.Close()
	var mu sync.Mutex
	var tried []time.Time
	r.Machines = faulty{fakeMachines: fakeMachines{dir}, off: func(string) error {
		mu.Lock()
		defer mu.Unlock()
		if tried = append(tried, time.Now()); len(tried) < 4 {
			return errors.New("no route to host")
		}
		return nil
	}}
	result, err := r.Run(t.Context(), all(b))
	if err != nil || result.Result != "done" || len(tried) != 4 || w.boots(t, "nl-1") != 2 {
		t.Fatalf("got %+v, %v after %d wipes", result, err, len(tried))
	}
	for i := 1; i < len(tried); i++ {
		if rest, least := tried[i].Sub(tried[i-1]), restPolls*r.Poll<<(i-1); rest < least {
			t.Errorf("wipe %d came %v after the one before, want %v at least", i+1, rest, least)
		}
	}
}

// TestPowerOut: when nobody has power over any machine, no more leave than it takes to see it, and the rate counts those that did.
func TestPowerOut(t *testing.T) {
	b := testBundle("nl-1", "nl-2", "nl-3", "nl-4", "nl-5", "nl-6")
	b.Policy.Rotation.Retries = 0
	dir, w := serving(t, b)
	r := testRunner(t, dir, b)
	defer r.Store.Close()
	r.Machines = faulty{fakeMachines: fakeMachines{dir}, off: func(string) error { return errors.New("no route to host") }}
	rules := all(b)
	rules.MaxParallel = 1
	for range 2 { // the next run does not go on either
		result, err := r.Run(t.Context(), rules)
		if result.Result != stuck || err == nil {
			t.Errorf("got %+v, %v, want %s", result, err, stuck)
		}
	}
	servers, err := w.store.Servers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out := 0
	for i, s := range servers {
		servers[i].BootedAt = time.Time{}
		if s.State == inventory.Quarantined {
			out++
		}
	}
	if out != powerRow || len(leftLately(servers, time.Now())) != powerRow {
		t.Errorf("%d servers are out and %d count as left, want %d", out, len(leftLately(servers, time.Now())), powerRow)
	}
}

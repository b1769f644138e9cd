package rotate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"mayfly/fleetctl/plan"
	"mayfly/internal/durable"
	"mayfly/internal/pki"
	"mayfly/inventory"
	"mayfly/inventory/store"
	"mayfly/inventory/store/sqlite"
	"mayfly/policies"
	"mayfly/policies/bundle"
	"mayfly/rebuild/join"
	"mayfly/rebuild/power"
	"mayfly/rebuild/release"
	"mayfly/rebuild/ticket"
)

// testBundle is a fleet of one region, whose floor lets one of two servers out, and one region with one server and no floor.
func testBundle(servers ...string) *bundle.Bundle {
	f := inventory.Fleet{Name: "lab", Domain: "lab.test", Test: true,
		Network:    inventory.Network{Gateway: netip.MustParseAddr("10.77.0.1")},
		Controller: inventory.Controller{Address: netip.MustParseAddr("10.77.0.1"), BootPort: 8080, JoinPort: 8443, CheckinPort: 9443},
		Regions:    []inventory.Region{{Name: "se", Floor: inventory.Floor{Mbps: 1000}}, {Name: "nl"}},
		Racks:      []inventory.Rack{{Name: "se-a", Region: "se"}, {Name: "nl-a", Region: "nl"}},
	}
	for i, name := range servers {
		f.Servers = append(f.Servers, inventory.Server{Name: name, Rack: name[:2] + "-a", Role: "vpn", Capacity: 1000,
			Address: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 77, 0, byte(11 + i)}), 24),
			Tunnel:  netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 64, byte(1 + i), 0}), 24),
			Power:   inventory.Power{Driver: "qemu"}})
	}
	p := policies.Policy{Version: 1, Rotation: policies.Rotation{MaxAge: policies.Duration(24 * time.Hour), MaxParallel: 2,
		DrainLimit: policies.Duration(5 * time.Second), BootLimit: policies.Duration(30 * time.Second),
		Bake: policies.Duration(10 * time.Millisecond), Retries: 1}}
	return &bundle.Bundle{Fleet: "lab", Version: 1, Policy: p, Inventory: f}
}

// testRunner has machines that are files in dir.
func testRunner(t interface{ Fatal(...any) }, dir string, b *bundle.Bundle) *Runner {
	s, err := sqlite.Open(context.Background(), filepath.Join(dir, "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	ca, _, err := pki.NewCA("lab.test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return &Runner{Store: s, Bundle: b, Trust: []byte("{}"), CA: ca,
		Release:  Release{Statement: release.Statement{Version: 7}, Path: "/releases/7/"},
		Machines: fakeMachines{dir}, Tickets: fakeTickets{}, Prober: fakeProber{}, Talk: fakeTalk{}, Poll: 2 * time.Millisecond}
}

// testTalk discards; the tests look at the store.
type fakeTalk struct{}

func (fakeTalk) Write(p []byte) (int, error) {
	if os.Getenv("MAYFLY_TALK") != "" {
		return os.Stderr.Write(p)
	}
	return len(p), nil
}

type fakeTickets struct{}

func (fakeTickets) Ticket(ctx context.Context, t ticket.Ticket) (data, sig []byte, err error) {
	data, err = t.Marshal()
	return data, []byte("signature"), err
}

type fakeProber struct{}

func (fakeProber) Probe(context.Context, inventory.Server) error { return nil }

// fakeMachines are files that outlive the process, like QEMU does.
type fakeMachines struct{ dir string }

func (m fakeMachines) Machine(s inventory.Server) (Machine, error) {
	return fakeMachine{filepath.Join(m.dir, s.Name+".machine")}, nil
}

type fakeMachine struct{ path string }

// machineFile counts each life's boots.
type machineFile struct {
	On    bool           `json:"on"`
	Epoch uint64         `json:"epoch"`
	Boots map[uint64]int `json:"boots"`
}

func (m fakeMachine) load() (machineFile, error) {
	f := machineFile{Boots: map[uint64]int{}}
	data, err := os.ReadFile(m.path)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err != nil {
		return f, err
	}
	return f, json.Unmarshal(data, &f)
}

func (m fakeMachine) save(f machineFile) error {
	data, err := json.Marshal(f)
	if err != nil {
		return err
	}
	return durable.WriteFile(m.path, data, 0o600)
}

func (m fakeMachine) Off(context.Context) error {
	f, err := m.load()
	if err != nil || !f.On {
		return err
	}
	f.On, f.Epoch = false, 0
	return m.save(f)
}

func (m fakeMachine) On(ctx context.Context, b power.Boot) error {
	f, err := m.load()
	if err != nil || f.On && f.Epoch == b.Epoch {
		return err
	}
	if len(b.Ticket) == 0 || len(b.TicketSig) == 0 {
		return errors.New("booted without a ticket")
	}
	f.On, f.Epoch = true, b.Epoch
	f.Boots[b.Epoch]++
	return m.save(f)
}

func (m fakeMachine) SetBoot(context.Context, power.Boot) error { return nil }

func (m fakeMachine) Joined(context.Context) error { return nil }

func (m fakeMachine) Console(context.Context) ([]byte, error) {
	return []byte("mayfly-stub: refused: release_unsigned: signed by 1 of 2\r\n"), nil
}

func (m fakeMachine) Status(context.Context) (power.Status, error) {
	f, err := m.load()
	return power.Status{On: f.On, Epoch: f.Epoch}, err
}

// world plays the servers and fleetctl serve on a store that a rotate, here or in another process, drives.
type world struct {
	dir   string
	b     *bundle.Bundle
	end   time.Time // every life's deadline, so that names decide the order
	store store.Store
	stop  context.CancelFunc
	done  sync.WaitGroup

	mu     sync.Mutex        // guards the rest
	dead   map[string]bool   // boots that never join
	deny   map[string]string // server, or server and release → reason of its boot's report
	err    error
	lowest map[string]int // least capacity seen serving, by region
}

func newWorld(t *testing.T, dir string, b *bundle.Bundle) *world {
	t.Helper()
	s, err := sqlite.Open(t.Context(), filepath.Join(dir, "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	w := &world{dir: dir, b: b, end: time.Now().Add(20 * time.Hour), store: s, stop: stop, dead: map[string]bool{}, deny: map[string]string{}, lowest: map[string]int{}}
	w.done.Go(func() {
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			if err := w.turn(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, store.ErrStale) {
				w.mu.Lock()
				w.err = errors.Join(w.err, err)
				w.mu.Unlock()
			}
			<-tick.C
		}
	})
	t.Cleanup(func() {
		stop()
		w.done.Wait()
		if err := errors.Join(w.err, s.Close()); err != nil {
			t.Error(err)
		}
	})
	return w
}

// turn lets every server that runs do its next thing.
func (w *world) turn(ctx context.Context) error {
	servers, err := w.store.Servers(ctx)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	capacity := map[string]int{"se": 0, "nl": 0}
	for _, s := range servers {
		if s.State == inventory.Serving {
			capacity[w.b.Inventory.RegionOf(s.Name)] += 1000
		}
		if err := w.server(ctx, s); err != nil {
			return err
		}
	}
	for g, c := range capacity {
		if low, ok := w.lowest[g]; !ok || c < low {
			w.lowest[g] = c
		}
	}
	return nil
}

func (w *world) server(ctx context.Context, s store.Server) error {
	m := fakeMachine{filepath.Join(w.dir, s.Name+".machine")}
	got, err := m.load()
	if err != nil || !got.On || got.Epoch != s.Epoch || w.dead[s.Name] && s.State == inventory.Booting {
		return err
	}
	if s.State == inventory.Booting { // the list may be older than what the machine boots
		if s, err = w.store.Server(ctx, s.Name); err != nil {
			return err
		}
	}
	now := time.Now()
	if reason := w.deny[s.Name] + w.deny[s.Name+" "+s.Release]; reason != "" && s.State == inventory.Booting {
		return w.store.BootFailed(ctx, s.Name, s.Epoch, reason, "as the test says", now)
	}
	switch s.State {
	case inventory.Booting:
		return w.store.Joined(ctx, s.Name, s.Epoch, store.Joined{BootID: fmt.Sprintf("boot-%d", s.Epoch), HostKey: "h", TunnelKey: "t", At: now, Deadline: w.end})
	case inventory.Draining:
		orders, err := w.store.Drains(ctx)
		if err != nil {
			return err
		}
		if _, ok := orders[s.Name]; ok && !s.Drained {
			return w.store.SetDrained(ctx, s.Name, s.Epoch, false)
		}
	case inventory.Attesting, inventory.Baking, inventory.Serving:
		if now.Sub(s.HealthAt) > time.Second {
			data, err := json.Marshal(join.Health{BootID: s.BootID, Ready: true, Services: map[string]string{"tunnel": "running"}})
			if err != nil {
				return err
			}
			return w.store.SetHealth(ctx, s.Name, s.Epoch, data, now)
		}
	}
	return nil
}

// machine reads a server's machine.
func (w *world) machine(t *testing.T, name string) machineFile {
	t.Helper()
	f, err := fakeMachine{filepath.Join(w.dir, name+".machine")}.load()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func (w *world) boots(t *testing.T, name string) int {
	t.Helper()
	n := 0
	for epoch, k := range w.machine(t, name).Boots {
		if k > 1 {
			t.Errorf("%s was booted %d times for life %d", name, k, epoch)
		}
		n += k
	}
	return n
}

// serving brings a fleet up, and returns its directory.
func serving(t *testing.T, b *bundle.Bundle) (string, *world) {
	t.Helper()
	dir := t.TempDir()
	w := newWorld(t, dir, b)
	r := testRunner(t, dir, b)
	result, err := r.Run(t.Context(), Rules(b.Inventory, b.Policy.Rotation, nil))
	if err = errors.Join(err, r.Store.Close()); err != nil || result.Result != "done" {
		t.Fatalf("bringing the fleet up: %v, %v", result, err)
	}
	w.mu.Lock()
	clear(w.lowest)
	w.mu.Unlock()
	return dir, w
}

func all(b *bundle.Bundle) plan.Rules {
	r := Rules(b.Inventory, b.Policy.Rotation, nil)
	r.All = true
	return r
}

package rotate

import (
	"context"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"mayfly/inventory"
	"mayfly/rebuild/power"
)

// leavers are machines that nobody can switch off: they are told to leave.
type leavers struct {
	fakeMachines
	mu   sync.Mutex // guards left
	left map[string]uint64
}

func (m *leavers) Machine(s inventory.Server) (Machine, error) {
	return leaver{fakeMachine{filepath.Join(m.dir, s.Name+".machine")}, m, s.Name}, nil
}

type leaver struct {
	fakeMachine
	all  *leavers
	name string
}

var _ power.Leaver = leaver{}

func (m leaver) Leave(_ context.Context, epoch uint64) error {
	m.all.mu.Lock()
	defer m.all.mu.Unlock()
	m.all.left[m.name] = epoch
	return nil
}

func (m leaver) Status(ctx context.Context) (power.Status, error) {
	s, err := m.fakeMachine.Status(ctx)
	s.Unknown = true
	return s, err
}

// TestLeavers: a machine without a BMC is told to leave in the life that is to end, and nobody says that it was read back as off.
func TestLeavers(t *testing.T) {
	dir := t.TempDir()
	b := testBundle("nl-1")
	newWorld(t, dir, b)
	r := testRunner(t, dir, b)
	defer r.Store.Close()
	m := &leavers{fakeMachines: fakeMachines{dir}, left: map[string]uint64{}}
	r.Machines = m
	for want := uint64(0); want <= 1; want++ {
		rules := Rules(b.Inventory, b.Policy.Rotation, nil)
		rules.All = true
		result, err := r.Run(t.Context(), rules)
		if err != nil || len(result.Servers) != 1 || result.Servers[0].State != inventory.Serving {
			t.Fatalf("got %+v, %v", result, err)
		}
		m.mu.Lock()
		if m.left["nl-1"] != want {
			t.Errorf("life %d was told to leave, want %d", m.left["nl-1"], want)
		}
		m.mu.Unlock()
	}
	events, err := r.Store.Events(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	said := 0
	for _, e := range events {
		if strings.Contains(e.Cause, "read back") && e.To == string(inventory.Booting) {
			if !strings.Contains(e.Cause, "nothing can be read back") {
				t.Errorf("it is said of a machine without a BMC: %s", e.Cause)
			}
			said++
		}
	}
	if said != 2 {
		t.Errorf("%d wipes, want 2", said)
	}
}

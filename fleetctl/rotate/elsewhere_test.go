package rotate

import (
	"context"
	"strings"
	"testing"
	"time"

	"mayfly/inventory"
	"mayfly/policies"
	"mayfly/rebuild/power"
)

// notedMachines are machines whose driver knows a running life only on the controller that booted it, as those of BMCs do.
type notedMachines struct {
	fakeMachines
	note map[string]uint64
}

type notedMachine struct {
	Machine
	name string
	note map[string]uint64
}

func (m notedMachines) Machine(s inventory.Server) (Machine, error) {
	x, err := m.fakeMachines.Machine(s)
	return notedMachine{x, s.Name, m.note}, err
}

func (m notedMachine) On(ctx context.Context, b power.Boot) error {
	m.note[m.name] = b.Epoch
	return m.Machine.On(ctx, b)
}

func (m notedMachine) Status(ctx context.Context) (power.Status, error) {
	s, err := m.Machine.Status(ctx)
	if s.On {
		s.Epoch = m.note[m.name]
	}
	return s, err
}

// TestTakenOverElsewhere: a controller on another host carries a life on whose boot it knows of from the journal alone; the life is not thrown away.
func TestTakenOverElsewhere(t *testing.T) {
	for _, state := range []inventory.State{inventory.Attesting, inventory.Baking} {
		t.Run(string(state), func(t *testing.T) {
			b := testBundle("nl-1")
			dir, w := serving(t, b)
			b.Policy.Rotation.Bake = policies.Duration(3 * time.Second)
			b.Policy.Rotation.Retries = 0
			first := testRunner(t, dir, b)
			first.Machines = notedMachines{fakeMachines{dir}, map[string]uint64{}}
			ctx, cancel := context.WithCancel(t.Context())
			first.point = func(name string) {
				if name == "moved "+string(state) || state == inventory.Attesting && name == "recorded boot done" {
					cancel()
				}
			}
			_, err := first.Run(ctx, all(b))
			cancel()
			if err == nil || !strings.Contains(err.Error(), "interrupted") {
				t.Fatalf("the first ended with %v", err)
			}
			if err := first.Store.Close(); err != nil {
				t.Fatal(err)
			}
			second := testRunner(t, dir, b)
			defer second.Store.Close()
			second.Machines = notedMachines{fakeMachines{dir}, map[string]uint64{}}
			result, err := second.Run(t.Context(), all(b))
			if err != nil || len(result.Servers) != 1 || result.Servers[0].State != inventory.Serving || result.Servers[0].Epoch != 2 {
				t.Errorf("got %+v, %v, want the life that was under way serving", result, err)
			}
			if n := w.boots(t, "nl-1"); n != 2 {
				t.Errorf("%d boots, want 2: one to come up, one for the rotation", n)
			}
		})
	}
}

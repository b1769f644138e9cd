package rotate

import (
	"path/filepath"
	"sync"
	"testing"
	"time"

	"mayfly/inventory"
	"mayfly/inventory/store/sqlite"
)

// TestFloorIsAskedInTheTransaction: between the plan that lets se-1 go and its first move, somebody else takes se-2 away. The
// transaction looks again, and se-1 stays until se-2 is back.
func TestFloorIsAskedInTheTransaction(t *testing.T) {
	for _, tt := range []struct {
		name  string
		begin bool // both are new, and one may be out at once; else both serve, and the floor needs one
	}{{"serving", false}, {"new", true}} {
		t.Run(tt.name, func(t *testing.T) {
			b := testBundle("se-1", "se-2")
			var dir string
			if tt.begin {
				b.Policy.Rotation.MaxParallel = 1
				dir = t.TempDir()
				newWorld(t, dir, b)
			} else {
				dir, _ = serving(t, b)
			}
			r := testRunner(t, dir, b)
			defer r.Store.Close()
			other, err := sqlite.Open(t.Context(), filepath.Join(dir, "store.db"))
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
			var after int64
			var once sync.Once
			r.point = func(name string) {
				if name != "leave" {
					return
				}
				once.Do(func() {
					events, err := other.Events(t.Context(), 0)
					if err != nil {
						t.Error(err)
					}
					if len(events) > 0 {
						after = events[len(events)-1].ID
					}
					s, err := other.Server(t.Context(), "se-2")
					if err != nil {
						t.Error(err)
					}
					if tt.begin {
						_, err = other.BeginLife(t.Context(), "se-2", s.Epoch, s.State, "meanwhile", time.Now(), nil)
					} else {
						err = other.Move(t.Context(), "se-2", s.Epoch, s.State, inventory.Draining, "meanwhile", time.Now())
					}
					if err != nil {
						t.Error(err)
					}
				})
			}
			result, err := r.Run(t.Context(), all(b))
			if err != nil || result.Result != "done" {
				t.Fatalf("got %v, %v, want done", result, err)
			}
			events, err := other.Events(t.Context(), after)
			if err != nil || len(events) == 0 || events[0].Server != "se-2" {
				t.Fatalf("got %v, %v, want se-2 to be taken away first", events, err)
			}
			out := map[string]bool{}
			for _, e := range events {
				out[e.Server] = inventory.State(e.To).InFlight()
				if out["se-1"] && out["se-2"] {
					t.Fatalf("%s to %s (%s): both are out at once", e.Server, e.To, e.Cause)
				}
			}
		})
	}
}

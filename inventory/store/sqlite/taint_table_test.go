package sqlite

import (
	"errors"
	"testing"

	"mayfly/inventory"
	"mayfly/inventory/store"
)

// A tainted life does not serve again even if the table of transitions were to change.
func TestTaintedNeverServes(t *testing.T) {
	ctx, s := t.Context(), newStore(t, "a")
	epoch := serving(t, s, "a", now)
	if err := s.Taint(ctx, "a", epoch, "x", now, now, func([]store.Server) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if _, err := s.db.ExecContext(ctx, "UPDATE servers SET state = 'baking' WHERE name = 'a'"); err != nil {
		t.Fatal(err)
	}
	if err := s.Move(ctx, "a", epoch, inventory.Baking, inventory.Serving, "x", now); !errors.Is(err, store.ErrTainted) {
		t.Errorf("a tainted life to serving: %v", err)
	}
}

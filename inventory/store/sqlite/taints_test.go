package sqlite

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"mayfly/inventory"
	"mayfly/inventory/store"
)

// serving brings a server that was added to Serving in a life.
func serving(t *testing.T, s *Store, name string, now time.Time) uint64 {
	t.Helper()
	epoch, err := s.BeginLife(t.Context(), name, 0, inventory.New, "test", now, nil)
	if err != nil {
		t.Fatal(err)
	}
	from := inventory.Wiping
	for _, to := range []inventory.State{inventory.Booting, inventory.Attesting, inventory.Baking, inventory.Serving} {
		if err := s.Move(t.Context(), name, epoch, from, to, "test", now); err != nil {
			t.Fatal(err)
		}
		from = to
	}
	return epoch
}

func TestTaint(t *testing.T) {
	ctx, now := t.Context(), time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
	s := openStore(t, filepath.Join(t.TempDir(), "store.db"))
	add(t, s, "a", "b")
	epoch := serving(t, s, "a", now)
	held := now.Add(time.Hour)
	no := errors.New("no")
	if err := s.Taint(ctx, "a", epoch, "disk full", held, now, func([]store.Server) error { return no }); !errors.Is(err, no) {
		t.Fatalf("with a check that refuses: got %v", err)
	}
	if got, err := s.Server(ctx, "a"); err != nil || got.Tainted || got.State != inventory.Serving {
		t.Fatalf("refused, and yet: %+v, %v", got, err)
	}
	yes := func(all []store.Server) error {
		if len(all) != 2 {
			t.Errorf("the check sees %d servers", len(all))
		}
		return nil
	}
	if err := s.Taint(ctx, "a", epoch+1, "x", held, now, yes); !errors.Is(err, store.ErrStale) {
		t.Errorf("another life: got %v", err)
	}
	if err := s.Taint(ctx, "b", 0, "x", held, now, yes); !errors.Is(err, store.ErrStale) {
		t.Errorf("a server that does not serve: got %v", err)
	}
	if err := s.Taint(ctx, "a", epoch, "disk full", held, now, yes); err != nil {
		t.Fatal(err)
	}
	got, err := s.Server(ctx, "a")
	if err != nil || !got.Tainted || got.State != inventory.Draining || !got.HeldUntil.Equal(held) || got.TaintReason != "disk full" || got.Cause != "for an engineer: disk full" {
		t.Errorf("got %+v, %v", got, err)
	}
	if all, err := s.Servers(ctx); err != nil || !all[0].Tainted || all[1].Tainted {
		t.Errorf("got %+v, %v", all, err)
	}

	// It is held, and only ever shorter.
	if _, err := s.BeginLife(ctx, "a", epoch, inventory.Draining, "x", held.Add(-1), nil); !errors.Is(err, store.ErrHeld) {
		t.Errorf("rebuilt under the engineer: %v", err)
	}
	if err := s.Hold(ctx, "a", epoch, held.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	sooner := now.Add(time.Minute)
	if err := s.Hold(ctx, "a", epoch, sooner); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Server(ctx, "a"); err != nil || !got.HeldUntil.Equal(sooner) {
		t.Errorf("held until %s, %v", got.HeldUntil, err)
	}
	if err := s.Hold(ctx, "b", 0, sooner); !errors.Is(err, store.ErrStale) {
		t.Errorf("holding what is not tainted: %v", err)
	}

	// It cannot serve again: not by the table, and not if the table were to change.
	if err := s.Move(ctx, "a", epoch, inventory.Draining, inventory.Serving, "x", now); !errors.Is(err, store.ErrIllegal) {
		t.Errorf("draining to serving: %v", err)
	}
	if _, err := s.db.ExecContext(ctx, "UPDATE servers SET state = 'baking' WHERE name = 'a'"); err != nil {
		t.Fatal(err)
	}
	if err := s.Move(ctx, "a", epoch, inventory.Baking, inventory.Serving, "x", now); !errors.Is(err, store.ErrTainted) {
		t.Errorf("a tainted life to serving: %v", err)
	}
	if _, err := s.db.ExecContext(ctx, "UPDATE servers SET state = 'draining' WHERE name = 'a'"); err != nil {
		t.Fatal(err)
	}

	// The rebuild's life is a new one.
	next, err := s.BeginLife(ctx, "a", epoch, inventory.Draining, "x", sooner, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.Server(ctx, "a"); err != nil || got.Tainted || got.Epoch != next || !got.HeldUntil.IsZero() {
		t.Errorf("after the rebuild began: %+v, %v", got, err)
	}
}

// TestSchema2: a store from before taints were kept can be read, and is brought up when it is opened.
func TestSchema2(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := openStore(t, path)
	add(t, s, "a")
	if err := s.ActUnder(t.Context(), 7); err != nil {
		t.Fatal(err)
	}
	for _, q := range []string{"DROP TABLE taints", "DROP TABLE logins", "DROP TABLE extensions", "DROP TABLE restarts", "DROP TABLE claims", "DROP TABLE outcomes", "DROP TABLE pause", "DROP TABLE uses", "DROP TABLE marks", "ALTER TABLE runs DROP COLUMN cancelled", "ALTER TABLE runs DROP COLUMN cancelled_by", "ALTER TABLE servers DROP COLUMN evidence", "ALTER TABLE servers DROP COLUMN epoch_floor", "PRAGMA user_version = 2"} {
		if _, err := s.db.ExecContext(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	r, err := OpenReadOnly(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if all, err := r.Servers(t.Context()); err != nil || len(all) != 1 || all[0].Tainted || all[0].Evidence != "" {
		t.Errorf("for reading: got %v, %v", all, err)
	}
	if v, err := r.PolicyVersion(t.Context()); err != nil || v != 7 {
		t.Errorf("for reading: policy %d, %v", v, err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	up := openStore(t, path)
	epoch := serving(t, up, "a", time.Now())
	if err := up.Taint(t.Context(), "a", epoch, "x", time.Now(), time.Now(), func([]store.Server) error { return nil }); err != nil {
		t.Error(err)
	}
	if v, err := up.PolicyVersion(t.Context()); err != nil || v != 7 {
		t.Errorf("brought up: policy %d, %v", v, err)
	}
}

package sqlite

import (
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

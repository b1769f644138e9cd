package sqlite

import (
	"errors"
	"mayfly/inventory/store"
	"path/filepath"
	"testing"
)

// TestActUnder: the newest policy's version outlives the process, and no older one is taken.
func TestActUnder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := openStore(t, path)
	for _, tt := range []struct {
		version uint64
		want    error
		after   uint64
	}{{1, nil, 1}, {3, nil, 3}, {3, nil, 3}, {2, store.ErrPolicyOlder, 3}, {0, store.ErrPolicyOlder, 3}} {
		if err := s.ActUnder(t.Context(), tt.version); !errors.Is(err, tt.want) {
			t.Errorf("version %d: got %v, want %v", tt.version, err, tt.want)
		}
		if got, err := openStore(t, path).PolicyVersion(t.Context()); got != tt.after || err != nil {
			t.Errorf("after version %d: got %d, %v, want %d", tt.version, got, err, tt.after)
		}
	}
	if err := s.ActUnder(t.Context(), 1<<63); err == nil {
		t.Error("a version beyond SQLite's integers was taken")
	}
}

// TestSchema1: a store from before the policy's version was remembered can be read, and is brought up when it is opened.
func TestSchema1(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := openStore(t, path)
	add(t, s, "a")
	for _, q := range []string{"DROP TABLE policy", "DROP TABLE taints", "DROP TABLE logins", "DROP TABLE extensions", "DROP TABLE restarts", "DROP TABLE claims", "DROP TABLE outcomes", "DROP TABLE pause", "DROP TABLE uses", "DROP TABLE marks", "ALTER TABLE runs DROP COLUMN cancelled", "ALTER TABLE runs DROP COLUMN cancelled_by", "ALTER TABLE servers DROP COLUMN evidence", "ALTER TABLE servers DROP COLUMN epoch_floor", "PRAGMA user_version = 1"} {
		if _, err := s.db.ExecContext(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	r, err := OpenReadOnly(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if v, err := r.PolicyVersion(t.Context()); v != 0 || err != nil {
		t.Errorf("for reading: got %d, %v, want 0", v, err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	up := openStore(t, path)
	if err := up.ActUnder(t.Context(), 2); err != nil {
		t.Error(err)
	}
	if all, err := up.Servers(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("got %v, %v, want server a", all, err)
	}
}

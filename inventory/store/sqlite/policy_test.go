package sqlite

import (
	"path/filepath"
	"testing"
)

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

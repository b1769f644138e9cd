package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"mayfly/inventory/store"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestLogins: kept once, of servers of the fleet only, bounded for each server.
func TestLogins(t *testing.T) {
	s := newStore(t, "se-1", "se-2")
	ctx := t.Context()
	login := func(server string, n int) store.Login {
		at := now.Add(time.Duration(n) * time.Second)
		return store.Login{Server: server, Epoch: 1, Number: uint64(n), At: at, Seen: at.Add(time.Millisecond),
			User: "alice", Method: "publickey", Key: "SHA256:x", Peer: netip.MustParseAddrPort("10.77.0.2:4000")}
	}
	for n := 1; n <= 3; n++ {
		for _, want := range []bool{true, false} {
			if fresh, err := s.AddLogin(ctx, login("se-1", n)); err != nil || fresh != want {
				t.Fatalf("login %d: fresh %v, %v; want %v", n, fresh, err, want)
			}
		}
	}
	got, err := s.Logins(ctx, login("se-1", 2).Seen)
	if err != nil || len(got) != 2 || got[0] != login("se-1", 2) || got[1] != login("se-1", 3) {
		t.Errorf("got %+v, %v", got, err)
	}
	unread := store.Login{Server: "se-1", Epoch: 2, Number: 1, At: now, Seen: now.Add(time.Hour), Unread: "Accepted what", Missed: 7}
	if _, err := s.AddLogin(ctx, unread); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Logins(ctx, unread.Seen); err != nil || len(got) != 1 || got[0] != unread {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := s.AddLogin(ctx, login("nobody", 1)); err == nil {
		t.Error("a server that is not of the fleet has a login")
	}
	// One server's flood drops that server's oldest.
	if _, err := s.AddLogin(ctx, login("se-2", 1)); err != nil {
		t.Fatal(err)
	}
	err = s.write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
			INSERT INTO logins (server, epoch, number, at, seen, user, method, key, peer, unread, missed) SELECT 'se-1', 3, i, 1, 1, 'x', 'publickey', 'x', '', '', 0 FROM n`, maxLogins)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.AddLogin(ctx, login("se-1", 9)); err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	all, err := s.Logins(ctx, time.Time{})
	for _, l := range all {
		count[l.Server]++
	}
	if err != nil || count["se-1"] != maxLogins || count["se-2"] != 1 {
		t.Errorf("kept %v, %v", count, err)
	}
}

// TestSchemasAdd: a store of any older version is brought up, and an old one that is only read has no logins.
func TestSchemasAdd(t *testing.T) {
	for version := 1; version < schemaVersion; version++ {
		path := filepath.Join(t.TempDir(), "store.db")
		db, err := sql.Open("sqlite", path)
		if err != nil {
			t.Fatal(err)
		}
		text := ""
		for _, s := range schemas[:version] {
			text += s
		}
		for _, q := range []string{text, fmt.Sprintf("PRAGMA application_id = %d", applicationID), fmt.Sprintf("PRAGMA user_version = %d", version)} {
			if _, err := db.ExecContext(t.Context(), q); err != nil {
				t.Fatal(err)
			}
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		chmod(t, path)
		old, err := OpenReadOnly(t.Context(), path)
		if err != nil {
			t.Fatalf("version %d: %v", version, err)
		}
		if list, err := old.Logins(t.Context(), time.Time{}); err != nil || len(list) != 0 {
			t.Errorf("version %d, only read: %v, %v", version, list, err)
		}
		if list, err := old.Servers(t.Context()); err != nil || len(list) != 0 {
			t.Errorf("version %d, only read: %v, %v", version, list, err)
		}
		if what, err := knownOf(t.Context(), old); err != nil || what != "" {
			t.Errorf("version %d, only read: got %s, %v, want nothing known", version, what, err)
		}
		if err := old.Close(); err != nil {
			t.Fatal(err)
		}
		s := openStore(t, path)
		add(t, s, "se-1")
		if fresh, err := s.AddLogin(t.Context(), store.Login{Server: "se-1", Epoch: 1, Number: 1, At: now, Seen: now, User: "a"}); err != nil || !fresh {
			t.Errorf("version %d, brought up: %v, %v", version, fresh, err)
		}
		if err := s.ActUnder(t.Context(), 1); err != nil {
			t.Errorf("version %d, brought up: %v", version, err)
		}
	}
}

// knownOf is what a store says beside its servers: of runs, releases, pauses and claims.
func knownOf(ctx context.Context, s *Store) (what string, err error) {
	use, used, e1 := s.InUse(ctx)
	marks, e2 := s.Marks(ctx)
	pause, e3 := s.Paused(ctx)
	outcomes, e4 := s.Outcomes(ctx, "", time.Time{})
	claims, e5 := s.Claims(ctx, now)
	open, isOpen, e6 := s.OpenRun(ctx)
	last, hasLast, e7 := s.LastRun(ctx)
	orders, e8 := s.Restarts(ctx)
	extended, e9 := s.Extensions(ctx)
	if used || len(marks) > 0 || pause.On || len(outcomes) > 0 || len(claims) > 0 || isOpen || hasLast || len(orders) > 0 || len(extended) > 0 {
		what = fmt.Sprint(use, marks, pause, outcomes, claims, open, last, orders, extended)
	}
	return what, errors.Join(e1, e2, e3, e4, e5, e6, e7, e8, e9)
}

func chmod(t *testing.T, path string) {
	t.Helper()
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
}

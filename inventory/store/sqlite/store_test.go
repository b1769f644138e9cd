package sqlite

import (
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"mayfly/inventory"
	"mayfly/inventory/store"
)

var now = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)

func openStore(t testing.TB, path string) *Store {
	t.Helper()
	s, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// newStore returns a store with these servers, each New.
func newStore(t testing.TB, names ...string) *Store {
	t.Helper()
	s := openStore(t, filepath.Join(t.TempDir(), "store.db"))
	add(t, s, names...)
	return s
}

func add(t testing.TB, s *Store, names ...string) {
	t.Helper()
	var f inventory.Fleet
	for _, n := range names {
		f.Servers = append(f.Servers, inventory.Server{Name: n})
	}
	if err := s.Sync(t.Context(), f, now); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, s *Store, name string) store.Server {
	t.Helper()
	v, err := s.Server(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestOpenRefuses(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	execute := func(name string, statements ...string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		db, err := sql.Open("sqlite", path)
		if err != nil {
			t.Fatal(err)
		}
		for _, q := range statements {
			if _, err := db.ExecContext(ctx, q); err != nil {
				t.Fatal(err)
			}
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		return path
	}
	garbage := filepath.Join(dir, "garbage")
	if err := os.WriteFile(garbage, []byte(strings.Repeat("no database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	readable := filepath.Join(dir, "readable")
	if err := os.WriteFile(readable, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	application := fmt.Sprintf("PRAGMA application_id = %d", applicationID)
	for _, tt := range []struct{ name, path, want string }{
		{"newer schema", execute("newer", application, fmt.Sprintf("PRAGMA user_version = %d", schemaVersion+1)), fmt.Sprintf("its schema is version %d and this program knows %d", schemaVersion+1, schemaVersion)},
		{"older schema", execute("older", application, "CREATE TABLE x (y)"), "its schema is version 0"},
		{"another program's", execute("other", "CREATE TABLE x (y)"), "another program"},
		{"another application", execute("application", "PRAGMA application_id = 7"), "another program"},
		{"garbage", garbage, ""},
		{"others may read", readable, "mode 0644"},
		{"directory", dir, ""},
		{"no directory", filepath.Join(dir, "none", "store.db"), "no such file"},
	} {
		s, err := Open(ctx, tt.path)
		if err == nil {
			s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestOpenSettings(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a ?#%41 b.db") // none of this means anything
	s := openStore(t, path)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode: got %v, %v, want 0600", info, err)
	}
	for _, tt := range []struct{ pragma, want string }{
		{"journal_mode", "wal"}, {"synchronous", "2"}, {"foreign_keys", "1"}, {"busy_timeout", "10000"},
		{"user_version", fmt.Sprint(schemaVersion)}, {"application_id", fmt.Sprint(applicationID)},
	} {
		var got string
		if err := s.db.QueryRowContext(t.Context(), "PRAGMA "+tt.pragma).Scan(&got); err != nil || got != tt.want {
			t.Errorf("%s: got %q, %v, want %q", tt.pragma, got, err, tt.want)
		}
	}
}

// childStore names the store to a copy of this test that runs as a process of its own.
const childStore = "MAYFLY_TEST_STORE"

const perProcess = 25

// Three processes open the same new store and take servers through their lives: nothing is lost.
func TestProcesses(t *testing.T) {
	if path := os.Getenv(childStore); path != "" {
		work(t, path, os.Getenv(childStore+"_NAME"))
		return
	}
	path := filepath.Join(t.TempDir(), "store.db")
	var wg sync.WaitGroup
	names := []string{"a", "b", "c"}
	for _, name := range names {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestProcesses$", "-test.timeout=2m")
		cmd.Env = append(os.Environ(), childStore+"="+path, childStore+"_NAME="+name)
		wg.Go(func() {
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("process %s: %v: %s", name, err, out)
			}
		})
	}
	wg.Wait()
	s := openStore(t, path)
	events, err := s.Events(t.Context(), 0)
	if want := len(names) * perProcess * 2; err != nil || len(events) != want {
		t.Errorf("got %d events, %v, want %d", len(events), err, want)
	}
	for _, name := range names {
		if got := get(t, s, name); got.Epoch != perProcess || got.State != inventory.Quarantined {
			t.Errorf("%s: got %+v", name, got)
		}
	}
}

func work(t *testing.T, path, name string) {
	s := openStore(t, path)
	add(t, s, "a", "b", "c")
	from, epoch := inventory.New, uint64(0)
	for range perProcess {
		var err error
		if epoch, err = s.BeginLife(t.Context(), name, epoch, from, "", now, nil); err != nil {
			t.Fatal(err)
		}
		if err := s.Move(t.Context(), name, epoch, inventory.Wiping, inventory.Quarantined, "", now); err != nil {
			t.Fatal(err)
		}
		from = inventory.Quarantined
	}
}

func TestOpenReadOnly(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "store.db")
	if s, err := OpenReadOnly(t.Context(), path); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("no store: got %v, %v, want %v", s, err, fs.ErrNotExist)
	}
	if files := listing(t, dir); files != "" {
		t.Errorf("no store: it made %s", files)
	}
	s := openStore(t, path)
	add(t, s, "a")
	look := func(when string) {
		r, err := OpenReadOnly(t.Context(), path)
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		if all, err := r.Servers(t.Context()); err != nil || len(all) != 1 || all[0].Name != "a" {
			t.Errorf("%s: got %v, %v", when, all, err)
		}
		if err := r.Sync(t.Context(), inventory.Fleet{Servers: []inventory.Server{{Name: "b"}}}, now); err == nil {
			t.Errorf("%s: a store for reading took a write", when)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	look("while another process writes")
	other := filepath.Join(dir, "other.db")
	closed, err := Open(t.Context(), other)
	if err != nil {
		t.Fatal(err)
	}
	add(t, closed, "a")
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	path = other
	before := listing(t, dir)
	look("alone")
	if after := listing(t, dir); after != before {
		t.Errorf("reading changed\n%s to\n%s", before, after)
	}
	if err := os.Chmod(other, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenReadOnly(t.Context(), other); err == nil || !strings.Contains(err.Error(), "lets others at it") {
		t.Errorf("mode 0644: got %v", err)
	}
	empty := filepath.Join(dir, "empty.db")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenReadOnly(t.Context(), empty); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("empty file: got %v, want %v", err, fs.ErrNotExist)
	}
}

// listing is every file of a directory with the hash of what is in it.
func listing(t *testing.T, dir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s %x\n", filepath.Base(f), sha256.Sum256(data))
	}
	return b.String()
}

// TestClaimAfterClockStep: after the clock was set back by hours, a dead holder blocks a server for no longer than a claim lasts.
func TestClaimAfterClockStep(t *testing.T) {
	s := newStore(t)
	now := time.Now()
	const ttl = 30 * time.Second
	if _, err := s.Claim(t.Context(), store.Shared+"x", "dead", ttl, now.Add(6*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Claim(t.Context(), store.Shared+"x", "other", ttl, now); !errors.Is(err, store.ErrClaimed) {
		t.Errorf("at once: got %v, want ErrClaimed: it may live", err)
	}
	if _, err := s.Claim(t.Context(), store.Shared+"x", "other", ttl, now.Add(ttl)); err != nil {
		t.Errorf("a ttl later: %v", err)
	}
}

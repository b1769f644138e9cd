package sqlite

import (
	"context"
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

// states are all of them.
var states = []inventory.State{inventory.New, inventory.Serving, inventory.Draining, inventory.Wiping, inventory.Booting,
	inventory.Attesting, inventory.Baking, inventory.Quarantined}

func openStore(t *testing.T, path string) *Store {
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
func newStore(t *testing.T, names ...string) *Store {
	t.Helper()
	s := openStore(t, filepath.Join(t.TempDir(), "store.db"))
	add(t, s, names...)
	return s
}

func add(t *testing.T, s *Store, names ...string) {
	t.Helper()
	var f inventory.Fleet
	for _, n := range names {
		f.Servers = append(f.Servers, inventory.Server{Name: n})
	}
	if err := s.Sync(t.Context(), f, now); err != nil {
		t.Fatal(err)
	}
}

// to takes a New server to the state by legal moves, through one new life.
func to(t *testing.T, s *Store, name string, state inventory.State) uint64 {
	t.Helper()
	path := []inventory.State{inventory.New, inventory.Wiping, inventory.Booting, inventory.Attesting, inventory.Baking, inventory.Serving, inventory.Draining}
	if state == inventory.Quarantined {
		path = []inventory.State{inventory.New, inventory.Wiping, inventory.Quarantined}
	}
	var epoch uint64
	for i, next := range path {
		var err error
		switch {
		case next == inventory.Wiping:
			epoch, err = s.BeginLife(t.Context(), name, epoch, path[i-1], "test", now, nil)
		case i > 0:
			err = s.Move(t.Context(), name, epoch, path[i-1], next, "test", now)
		}
		if err != nil {
			t.Fatal(err)
		}
		if next == state {
			return epoch
		}
	}
	t.Fatalf("no way to %s", state)
	return 0
}

func get(t *testing.T, s *Store, name string) store.Server {
	t.Helper()
	v, err := s.Server(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestSync(t *testing.T) {
	s := newStore(t, "b", "a")
	to(t, s, "a", inventory.Serving)
	add(t, s, "a", "c") // b is gone from the fleet and kept
	all, err := s.Servers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, v := range all {
		got = append(got, fmt.Sprintf("%s %s %d", v.Name, v.State, v.Epoch))
	}
	if want := "a serving 1, b new 0, c new 0"; strings.Join(got, ", ") != want {
		t.Errorf("got %s, want %s", strings.Join(got, ", "), want)
	}
	if _, err := s.Server(t.Context(), "d"); !errors.Is(err, store.ErrUnknown) {
		t.Errorf("unknown server: got %v, want %v", err, store.ErrUnknown)
	}
}

// Every pair of states: the table decides, only BeginLife ends a life, an illegal move changes nothing, a legal one writes one event.
func TestMoveEveryPair(t *testing.T) {
	for _, from := range states {
		for _, target := range states {
			s := newStore(t, "a")
			epoch := to(t, s, "a", from)
			before, err := s.Events(t.Context(), 0)
			if err != nil {
				t.Fatal(err)
			}
			err = s.Move(t.Context(), "a", epoch, from, target, "why", now.Add(time.Minute))
			after, eerr := s.Events(t.Context(), 0)
			if eerr != nil {
				t.Fatal(eerr)
			}
			got := get(t, s, "a")
			if !inventory.Legal(from, target) || target == inventory.Wiping {
				if !errors.Is(err, store.ErrIllegal) || got.State != from || len(after) != len(before) {
					t.Errorf("%s → %s: got %v, state %s, %d events more, want %v and nothing", from, target, err, got.State, len(after)-len(before), store.ErrIllegal)
				}
				continue
			}
			if err != nil || got.State != target || got.Cause != "why" || !got.Since.Equal(now.Add(time.Minute)) {
				t.Errorf("%s → %s: got %+v, %v", from, target, got, err)
			}
			if len(after) != len(before)+1 {
				t.Fatalf("%s → %s: got %d events more, want 1", from, target, len(after)-len(before))
			}
			e := after[len(after)-1]
			if e.Server != "a" || e.From != string(from) || e.To != string(target) || e.Epoch != epoch || e.Cause != "why" || !e.At.Equal(now.Add(time.Minute)) {
				t.Errorf("%s → %s: event: got %+v", from, target, e)
			}
		}
	}
}

func TestMoveCompares(t *testing.T) {
	s := newStore(t, "a")
	epoch := to(t, s, "a", inventory.Serving)
	for _, tt := range []struct {
		name   string
		server string
		epoch  uint64
		from   inventory.State
		to     inventory.State
		want   error
	}{
		{"another life", "a", epoch + 1, inventory.Serving, inventory.Draining, store.ErrStale},
		{"an earlier life", "a", epoch - 1, inventory.Serving, inventory.Draining, store.ErrStale},
		{"another state", "a", epoch, inventory.Booting, inventory.Attesting, store.ErrStale},
		{"unknown server", "b", epoch, inventory.Serving, inventory.Draining, store.ErrUnknown},
		{"unknown state", "a", epoch, "", inventory.Draining, store.ErrIllegal},
	} {
		if err := s.Move(t.Context(), tt.server, tt.epoch, tt.from, tt.to, "", now); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
	if got := get(t, s, "a"); got.State != inventory.Serving {
		t.Errorf("state: got %s, want serving", got.State)
	}
}

// Of many that make the same move, one wins.
func TestMoveOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	one, two := openStore(t, path), openStore(t, path)
	add(t, one, "a")
	epoch := to(t, one, "a", inventory.Serving)
	var wg sync.WaitGroup
	results := make(chan error, 16)
	for i := range 16 {
		s := []*Store{one, two}[i%2]
		wg.Go(func() {
			results <- s.Move(t.Context(), "a", epoch, inventory.Serving, inventory.Draining, "", now)
		})
	}
	wg.Wait()
	close(results)
	won := 0
	for err := range results {
		if err == nil {
			won++
		} else if !errors.Is(err, store.ErrStale) {
			t.Errorf("got %v, want %v", err, store.ErrStale)
		}
	}
	if won != 1 {
		t.Errorf("got %d winners, want 1", won)
	}
}

func TestMoveChecked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	one, two := openStore(t, path), openStore(t, path)
	add(t, one, "a", "b")
	to(t, one, "a", inventory.Serving)
	to(t, one, "b", inventory.Serving)
	errFloor := errors.New("below the floor")
	floor := func(all []store.Server) error {
		serving := 0
		for _, v := range all {
			if v.State == inventory.Serving {
				serving++
			}
		}
		if serving < 2 {
			return errFloor
		}
		return nil
	}
	var wg sync.WaitGroup
	results := make(chan error, 2)
	for name, s := range map[string]*Store{"a": one, "b": two} {
		wg.Go(func() {
			results <- s.MoveChecked(t.Context(), name, 1, inventory.Serving, inventory.Draining, "", now, floor)
		})
	}
	wg.Wait()
	first, second := <-results, <-results
	if (first == nil) == (second == nil) || !errors.Is(errors.Join(first, second), errFloor) {
		t.Errorf("got %v and %v, want one nil and one %v", first, second, errFloor)
	}
}

func TestLife(t *testing.T) {
	s, ctx := newStore(t, "a"), t.Context()
	if _, err := s.BeginLife(ctx, "a", 0, inventory.Draining, "", now, nil); !errors.Is(err, store.ErrStale) {
		t.Errorf("beginning a life of a server that is new as if it drained: got %v, want %v", err, store.ErrStale)
	}
	epoch := to(t, s, "a", inventory.Booting)
	if got := get(t, s, "a"); !got.BootedAt.Equal(now) {
		t.Errorf("BootedAt: got %v, want %v", got.BootedAt, now)
	}
	j := store.Joined{BootID: "boot", HostKey: "host", TunnelKey: "tunnel", TLSKey: "tls", Evidence: "attested", At: now.Add(time.Minute), Deadline: now.Add(time.Hour)}
	if err := s.Joined(ctx, "a", epoch+1, j); !errors.Is(err, store.ErrStale) {
		t.Errorf("joined in another life: got %v, want %v", err, store.ErrStale)
	}
	if err := s.Joined(ctx, "a", epoch, j); err != nil {
		t.Fatal(err)
	}
	if err := s.Joined(ctx, "a", epoch, j); !errors.Is(err, store.ErrStale) {
		t.Errorf("joined twice: got %v, want %v", err, store.ErrStale)
	}
	if err := s.SetHealth(ctx, "a", epoch, []byte(`{"ready":true}`), now.Add(2*time.Minute)); err != nil {
		t.Fatal(err)
	}
	if err := s.SetDrained(ctx, "a", epoch, true); err != nil {
		t.Fatal(err)
	}
	if err := s.SetRelease(ctx, "a", epoch, "7"); err != nil {
		t.Fatal(err)
	}
	got := get(t, s, "a")
	if got.State != inventory.Attesting || got.BootID != "boot" || got.HostKey != "host" || got.TunnelKey != "tunnel" || got.TLSKey != "tls" ||
		got.Evidence != j.Evidence || !got.JoinedAt.Equal(j.At) || !got.Deadline.Equal(j.Deadline) || string(got.Health) != `{"ready":true}` ||
		!got.HealthAt.Equal(now.Add(2*time.Minute)) || !got.Drained || !got.DrainForced || got.Release != "7" {
		t.Errorf("got %+v", got)
	}
	for _, tt := range []struct {
		name string
		err  error
	}{
		{"health of an earlier life", s.SetHealth(ctx, "a", epoch-1, nil, now)},
		{"drained in an earlier life", s.SetDrained(ctx, "a", epoch-1, false)},
		{"release of a later life", s.SetRelease(ctx, "a", epoch+1, "x")},
		{"drain order for an earlier life", s.OrderDrain(ctx, "a", epoch-1, time.Minute)},
	} {
		if !errors.Is(tt.err, store.ErrStale) {
			t.Errorf("%s: got %v, want %v", tt.name, tt.err, store.ErrStale)
		}
	}
	if err := s.SetHealth(ctx, "b", 0, nil, now); !errors.Is(err, store.ErrUnknown) {
		t.Errorf("health of no server: got %v, want %v", err, store.ErrUnknown)
	}
	if err := s.OrderDrain(ctx, "a", epoch, time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := s.OrderDrain(ctx, "a", epoch, 2*time.Minute); err != nil {
		t.Fatal(err)
	}
	if d, err := s.Drains(ctx); err != nil || len(d) != 1 || d["a"] != (store.DrainOrder{Epoch: epoch, Limit: 2 * time.Minute}) {
		t.Errorf("drains: got %v, %v", d, err)
	}

	// The next life knows nothing of this one.
	next, err := s.BeginLife(ctx, "a", epoch, inventory.Attesting, "", now, nil)
	if err != nil || next != epoch+1 {
		t.Fatalf("next life: got %d, %v, want %d", next, err, epoch+1)
	}
	got = get(t, s, "a")
	want := store.Server{Name: "a", State: inventory.Wiping, Epoch: next, Since: now}
	if got.Health != nil || fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
		t.Errorf("next life: got %+v, want %+v", got, want)
	}
	if d, err := s.Drains(ctx); err != nil || len(d) != 0 {
		t.Errorf("drains of the next life: got %v, %v", d, err)
	}
}

func TestTickets(t *testing.T) {
	s, ctx := newStore(t, "a", "b"), t.Context()
	epoch := to(t, s, "a", inventory.Booting)
	end := now.Add(time.Minute)
	first, second, third := [32]byte{1}, [32]byte{2}, [32]byte{3}
	use := func(what string, hash [32]byte, name string, epoch uint64, at time.Time, want error) {
		t.Helper()
		if err := s.UseTicket(ctx, hash, name, epoch, at); !errors.Is(err, want) || want == nil && err != nil {
			t.Errorf("%s: got %v, want %v", what, err, want)
		}
	}
	revoked := func(epoch uint64, want bool) {
		t.Helper()
		if got, err := s.Revoked(ctx, "a", epoch); err != nil || got != want {
			t.Errorf("life %d revoked: got %v, %v, want %v", epoch, got, err, want)
		}
	}
	for _, tt := range []struct {
		name  string
		epoch uint64
		want  error
	}{{"a", epoch + 1, store.ErrStale}, {"a", 0, store.ErrStale}, {"b", 0, store.ErrStale}, {"c", 1, store.ErrUnknown}} {
		if err := s.PutTicket(ctx, tt.name, tt.epoch, first, end); !errors.Is(err, tt.want) {
			t.Errorf("ticket of %s, life %d: got %v, want %v", tt.name, tt.epoch, err, tt.want)
		}
	}
	for _, hash := range [][32]byte{first, second} {
		if err := s.PutTicket(ctx, "a", epoch, hash, end); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.PutTicket(ctx, "a", epoch, second, end); err == nil {
		t.Error("the same ticket twice: got nil, want an error")
	}
	use("never made", third, "a", epoch, now, store.ErrTicketUnknown)
	use("another server", second, "b", epoch, now, store.ErrTicketUnknown)
	use("another life", second, "a", epoch+1, now, store.ErrTicketUnknown)
	use("replaced", first, "a", epoch, now, store.ErrTicketRevoked)
	use("too late", second, "a", epoch, end, store.ErrTicketExpired)
	use("in time", second, "a", epoch, end.Add(-1), nil)
	revoked(epoch, false)
	use("again", second, "a", epoch, now, store.ErrTicketUsed)
	revoked(epoch, true)
	use("and again, late", second, "a", epoch, end, store.ErrTicketUsed)
	revoked(epoch+1, false)

	// An unused ticket does not outlive its life.
	if err := s.PutTicket(ctx, "a", epoch, third, end); err != nil {
		t.Fatal(err)
	}
	if _, err := s.BeginLife(ctx, "a", epoch, inventory.Booting, "", now, nil); err != nil {
		t.Fatal(err)
	}
	use("of the last life", third, "a", epoch, now, store.ErrTicketRevoked)
	revoked(epoch, true)
}

func TestTicketUsedOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	one, two := openStore(t, path), openStore(t, path)
	add(t, one, "a")
	epoch := to(t, one, "a", inventory.Booting)
	if err := one.PutTicket(t.Context(), "a", epoch, [32]byte{1}, now.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	results := make(chan error, 8)
	for i := range 8 {
		s := []*Store{one, two}[i%2]
		wg.Go(func() { results <- s.UseTicket(t.Context(), [32]byte{1}, "a", epoch, now) })
	}
	wg.Wait()
	close(results)
	won := 0
	for err := range results {
		if err == nil {
			won++
		} else if !errors.Is(err, store.ErrTicketUsed) {
			t.Errorf("got %v, want %v", err, store.ErrTicketUsed)
		}
	}
	if won != 1 {
		t.Errorf("got %d uses, want 1", won)
	}
	if s, err := two.Server(t.Context(), "a"); err != nil || !s.Revoked {
		t.Errorf("after a second use: got %+v, %v, want the life revoked", s, err)
	}
	if next, err := one.BeginLife(t.Context(), "a", epoch, inventory.Booting, "again", now, nil); err != nil {
		t.Fatal(err)
	} else if s, err := two.Server(t.Context(), "a"); err != nil || s.Revoked || s.Epoch != next {
		t.Errorf("the next life: got %+v, %v, want it not revoked", s, err)
	}
}

func TestFailures(t *testing.T) {
	s, ctx := newStore(t, "a"), t.Context()
	if err := s.BootFailed(ctx, "a", 1, "disk_present", "/dev/vda", now); err != nil {
		t.Fatal(err)
	}
	if err := s.BootFailed(ctx, "a", 1, "swap_active", "", now); err != nil {
		t.Fatal(err)
	}
	if reason, detail, ok, err := s.LastFailure(ctx, "a", 1); reason != "disk_present" || detail != "/dev/vda" || !ok || err != nil {
		t.Errorf("got %q, %q, %v, %v, want the first cause", reason, detail, ok, err)
	}
	if _, _, ok, err := s.LastFailure(ctx, "a", 2); ok || err != nil {
		t.Errorf("another life: got %v, %v", ok, err)
	}
	if err := s.BootFailed(ctx, "b", 1, "x", "", now); !errors.Is(err, store.ErrUnknown) {
		t.Errorf("no server: got %v, want %v", err, store.ErrUnknown)
	}
}

func TestRuns(t *testing.T) {
	s, ctx := newStore(t), t.Context()
	if _, open, err := s.OpenRun(ctx); open || err != nil {
		t.Errorf("at first: got %v, %v", open, err)
	}
	id, err := s.BeginRun(ctx, []byte("plan"), now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.BeginRun(ctx, []byte("plan 2"), now); !errors.Is(err, store.ErrRunOpen) {
		t.Errorf("a second run: got %v, want %v", err, store.ErrRunOpen)
	}
	if r, open, err := s.OpenRun(ctx); r.ID != id || string(r.Plan) != "plan" || !r.Began.Equal(now) || !open || err != nil {
		t.Errorf("got %+v, %v, %v", r, open, err)
	}
	if err := s.EndRun(ctx, id, "done", now); err != nil {
		t.Fatal(err)
	}
	if err := s.EndRun(ctx, id, "done again", now); !errors.Is(err, store.ErrStale) {
		t.Errorf("ended twice: got %v, want %v", err, store.ErrStale)
	}
	if next, err := s.BeginRun(ctx, []byte("plan 3"), now); err != nil || next == id {
		t.Errorf("the next run: got %d, %v", next, err)
	}
}

func TestEventsGoOn(t *testing.T) {
	s := newStore(t, "a")
	to(t, s, "a", inventory.Serving)
	all, err := s.Events(t.Context(), 0)
	if err != nil || len(all) != 5 {
		t.Fatalf("got %d events, %v, want 5", len(all), err)
	}
	rest, err := s.Events(t.Context(), all[2].ID)
	if err != nil || len(rest) != 2 || rest[0] != all[3] {
		t.Errorf("got %v, %v, want the last two", rest, err)
	}
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

func TestCancelled(t *testing.T) {
	s := newStore(t, "a")
	to(t, s, "a", inventory.Wiping)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Move(ctx, "a", 1, inventory.Wiping, inventory.Booting, "", now); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	if got := get(t, s, "a"); got.State != inventory.Wiping {
		t.Errorf("state: got %s, want wiping", got.State)
	}
}

// Every legal way into Wiping is a new life.
func TestBeginLifeFromEveryState(t *testing.T) {
	for _, from := range states {
		s := newStore(t, "a")
		epoch := to(t, s, "a", from)
		next, err := s.BeginLife(t.Context(), "a", epoch, from, "why", now, nil)
		got := get(t, s, "a")
		if !inventory.Legal(from, inventory.Wiping) {
			if !errors.Is(err, store.ErrIllegal) || got.State != from || got.Epoch != epoch {
				t.Errorf("%s: got %v, %s in life %d, want %v and nothing", from, err, got.State, got.Epoch, store.ErrIllegal)
			}
		} else if err != nil || next != epoch+1 || got.State != inventory.Wiping || got.Epoch != next {
			t.Errorf("%s: got %v, %s in life %d, want wiping in life %d", from, err, got.State, got.Epoch, epoch+1)
		}
	}
}

// A life does not begin against the word of check, which sees every server.
func TestBeginLifeAsks(t *testing.T) {
	s := newStore(t, "a", "b")
	no := errors.New("no")
	var seen []string
	_, err := s.BeginLife(t.Context(), "a", 0, inventory.New, "", now, func(all []store.Server) error {
		for _, x := range all {
			seen = append(seen, x.Name)
		}
		return no
	})
	if got := get(t, s, "a"); !errors.Is(err, no) || got.State != inventory.New || got.Epoch != 0 || len(seen) != 2 {
		t.Errorf("got %v, %s in life %d, asked about %v; want %v, nothing, and both servers", err, got.State, got.Epoch, seen, no)
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

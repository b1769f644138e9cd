package storetest

import (
	"errors"
	"net/netip"
	"sync"
	"testing"
	"time"

	"mayfly/inventory"
	"mayfly/inventory/store"
)

func testTickets(t *testing.T, k Kind) {
	s, ctx := fleet(t, k, "a", "b"), t.Context()
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

func testTicketUsedOnce(t *testing.T, k Kind) {
	open := k.Open(t)
	one, two := open(t), open(t)
	add(t, one, "a")
	epoch := to(t, one, "a", inventory.Booting)
	if err := one.PutTicket(t.Context(), "a", epoch, [32]byte{1}, now.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	results := make(chan error, 8)
	for i := range 8 {
		s := []store.Store{one, two}[i%2]
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

func testFailures(t *testing.T, k Kind) {
	s, ctx := fleet(t, k, "a"), t.Context()
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

// testExtend: the life that it is for lasts longer, no other does, and the next life begins without.
func testExtend(t *testing.T, k Kind) {
	ctx, now := t.Context(), time.Now().UTC().Truncate(time.Second)
	s := k.Open(t)(t)
	add(t, s, "a")
	epoch := serving(t, s, "a", now)
	if err := s.Extend(ctx, "a", now, store.Extension{Epoch: epoch + 1, Statement: []byte("x"), Sig: []byte("y")}); !errors.Is(err, store.ErrStale) {
		t.Errorf("another life: got %v, want store.ErrStale", err)
	}
	if err := s.Extend(ctx, "b", now, store.Extension{Epoch: epoch}); !errors.Is(err, store.ErrUnknown) {
		t.Errorf("another server: got %v, want store.ErrUnknown", err)
	}
	if all, err := s.Extensions(ctx); err != nil || len(all) != 0 {
		t.Errorf("after refusals: got %v, %v", all, err)
	}
	for i, until := range []time.Duration{2 * time.Hour, 3 * time.Hour, time.Hour} { // the last one shortens nothing
		if err := s.Extend(ctx, "a", now.Add(until), store.Extension{Epoch: epoch, Statement: []byte{byte(i)}, Sig: []byte("y")}); err != nil {
			t.Fatal(err)
		}
	}
	have, err := s.Server(ctx, "a")
	if err != nil || !have.Extended || !have.Deadline.Equal(now.Add(3*time.Hour)) {
		t.Errorf("got extended %v until %s, %v", have.Extended, have.Deadline, err)
	}
	if all, err := s.Extensions(ctx); err != nil || len(all) != 1 || all["a"].Epoch != epoch || string(all["a"].Statement) != "\x02" {
		t.Errorf("got %v, %v", all, err)
	}
	if err := s.Move(ctx, "a", epoch, have.State, inventory.Draining, "test", now); err != nil {
		t.Fatal(err)
	}
	if _, err := s.BeginLife(ctx, "a", epoch, inventory.Draining, "test", now, nil); err != nil {
		t.Fatal(err)
	}
	if have, err = s.Server(ctx, "a"); err != nil || have.Extended {
		t.Errorf("the next life: got %+v, %v", have, err)
	}
}

func testRestarts(t *testing.T, k Kind) {
	ctx := t.Context()
	s := k.Open(t)(t)
	add(t, s, "a")
	epoch, err := s.BeginLife(ctx, "a", 0, inventory.New, "test", time.Now(), nil)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now().UTC()
	r := store.Restart{Epoch: epoch, File: []byte("order"), Sig: []byte("sig"), NotAfter: at.Add(time.Minute)}
	if err := s.OrderRestart(ctx, "a", store.Restart{Epoch: epoch + 1}); !errors.Is(err, store.ErrStale) {
		t.Errorf("another life: got %v", err)
	}
	if err := s.OrderRestart(ctx, "a", r); err != nil {
		t.Fatal(err)
	}
	if err := s.RestartDelivered(ctx, "a", epoch+1, at); err != nil {
		t.Fatal(err)
	}
	if all, err := s.Restarts(ctx); err != nil || len(all) != 1 || string(all["a"].File) != "order" || !all["a"].Delivered.IsZero() || !all["a"].NotAfter.Equal(r.NotAfter) {
		t.Errorf("got %+v, %v", all, err)
	}
	if err := errors.Join(s.RestartDelivered(ctx, "a", epoch, at), s.RestartDelivered(ctx, "a", epoch, at.Add(time.Hour))); err != nil {
		t.Fatal(err)
	}
	if all, err := s.Restarts(ctx); err != nil || !all["a"].Delivered.Equal(at) {
		t.Errorf("got %+v, %v", all, err)
	}
	if err := s.OrderRestart(ctx, "a", r); err != nil {
		t.Fatal(err)
	}
	if all, err := s.Restarts(ctx); err != nil || !all["a"].Delivered.IsZero() {
		t.Errorf("ordered again: got %+v, %v", all, err)
	}
}

// testLogins: kept once, of servers of the fleet only, bounded for each server.
func testLogins(t *testing.T, k Kind) {
	s := fleet(t, k, "se-1", "se-2")
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
}

// testActUnder: the newest policy's version outlives the process, and no older one is taken.
func testActUnder(t *testing.T, k Kind) {
	open := k.Open(t)
	s := open(t)
	for _, tt := range []struct {
		version uint64
		want    error
		after   uint64
	}{{1, nil, 1}, {3, nil, 3}, {3, nil, 3}, {2, store.ErrPolicyOlder, 3}, {0, store.ErrPolicyOlder, 3}} {
		if err := s.ActUnder(t.Context(), tt.version); !errors.Is(err, tt.want) {
			t.Errorf("version %d: got %v, want %v", tt.version, err, tt.want)
		}
		if got, err := open(t).PolicyVersion(t.Context()); got != tt.after || err != nil {
			t.Errorf("after version %d: got %d, %v, want %d", tt.version, got, err, tt.after)
		}
	}
	if err := s.ActUnder(t.Context(), 1<<63); err == nil {
		t.Error("a version beyond SQLite's integers was taken")
	}
}

func testRuns(t *testing.T, k Kind) {
	s, ctx := fleet(t, k), t.Context()
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

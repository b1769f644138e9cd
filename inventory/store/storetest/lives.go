package storetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"mayfly/inventory"
	"mayfly/inventory/store"
)

func testSync(t *testing.T, k Kind) {
	s := fleet(t, k, "b", "a")
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
func testMoveEveryPair(t *testing.T, k Kind) {
	for _, from := range states {
		for _, target := range states {
			s := fleet(t, k, "a")
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

func testMoveCompares(t *testing.T, k Kind) {
	s := fleet(t, k, "a")
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
func testMoveOnce(t *testing.T, k Kind) {
	open := k.Open(t)
	one, two := open(t), open(t)
	add(t, one, "a")
	epoch := to(t, one, "a", inventory.Serving)
	var wg sync.WaitGroup
	results := make(chan error, 16)
	for i := range 16 {
		s := []store.Store{one, two}[i%2]
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

func testMoveChecked(t *testing.T, k Kind) {
	open := k.Open(t)
	one, two := open(t), open(t)
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
	for name, s := range map[string]store.Store{"a": one, "b": two} {
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

func testLife(t *testing.T, k Kind) {
	s, ctx := fleet(t, k, "a"), t.Context()
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

func testCancelled(t *testing.T, k Kind) {
	s := fleet(t, k, "a")
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
func testBeginLifeFromEveryState(t *testing.T, k Kind) {
	for _, from := range states {
		s := fleet(t, k, "a")
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
func testBeginLifeAsks(t *testing.T, k Kind) {
	s := fleet(t, k, "a", "b")
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

func testEventsGoOn(t *testing.T, k Kind) {
	s := fleet(t, k, "a")
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

func testTaint(t *testing.T, k Kind) {
	ctx, now := t.Context(), time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
	s := k.Open(t)(t)
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

	// The rebuild's life is a new one.
	next, err := s.BeginLife(ctx, "a", epoch, inventory.Draining, "x", sooner, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.Server(ctx, "a"); err != nil || got.Tainted || got.Epoch != next || !got.HeldUntil.IsZero() {
		t.Errorf("after the rebuild began: %+v, %v", got, err)
	}
}

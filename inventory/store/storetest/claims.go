package storetest

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"mayfly/inventory"
	"mayfly/inventory/store"
)

const ttl = 30 * time.Second

func claim(t testing.TB, s store.Store, server, holder string, at time.Time) store.Claim {
	t.Helper()
	c, err := s.Claim(t.Context(), server, holder, ttl, at)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func testClaims(t *testing.T, k Kind) {
	ctx, open := t.Context(), k.Open(t)
	one, two := open(t), open(t)
	add(t, one, "a", "b")
	first := claim(t, one, "a", "one", now)
	if first.Server != "a" || first.Holder != "one" || first.Token == 0 || !first.Expires.Equal(now.Add(ttl)) {
		t.Errorf("got %+v", first)
	}
	if _, err := two.Claim(ctx, "a", "two", ttl, now.Add(ttl-1)); !errors.Is(err, store.ErrClaimed) {
		t.Errorf("while another's lasts: got %v, want %v", err, store.ErrClaimed)
	}
	other := claim(t, two, "b", "two", now)
	if all, err := two.Claims(ctx, now); err != nil || len(all) != 2 || all[0].Server != "a" || all[0].Holder != "one" || all[0].Token != first.Token || all[1].Server != "b" {
		t.Errorf("got %+v, %v", all, err)
	}
	if _, err := two.Claim(ctx, "c", "two", ttl, now); !errors.Is(err, store.ErrUnknown) {
		t.Errorf("no such server: got %v, want %v", err, store.ErrUnknown)
	}
	renewed, err := one.Renew(ctx, first, ttl, now.Add(10*time.Second))
	if err != nil || renewed.Token != first.Token || !renewed.Expires.Equal(now.Add(10*time.Second+ttl)) {
		t.Errorf("renewed: got %+v, %v", renewed, err)
	}
	again := claim(t, one, "a", "one", now)
	if again.Token <= first.Token {
		t.Errorf("claimed again: token %d after %d", again.Token, first.Token)
	}
	if _, err := one.Renew(ctx, first, ttl, now); !errors.Is(err, store.ErrFenced) {
		t.Errorf("renewing what was claimed again: got %v, want %v", err, store.ErrFenced)
	}

	// Its holder dies.
	later := k.Lapse(t, one, again)
	if all, err := two.Claims(ctx, later); err != nil || len(all) > 1 || len(all) == 1 && all[0] == again {
		t.Errorf("after the end: got %+v, %v", all, err)
	}
	taken := claim(t, two, "a", "two", later)
	if taken.Token <= again.Token {
		t.Errorf("taken over: token %d after %d", taken.Token, again.Token)
	}
	if _, err := one.Renew(ctx, again, ttl, later); !errors.Is(err, store.ErrFenced) {
		t.Errorf("renewing what was taken over: got %v, want %v", err, store.ErrFenced)
	}
	if err := one.Release(ctx, again); err != nil {
		t.Errorf("releasing what was taken over: %v", err)
	}
	if _, err := one.Claim(ctx, "a", "one", ttl, later); !errors.Is(err, store.ErrClaimed) {
		t.Errorf("the old holder released the new one's claim: got %v, want %v", err, store.ErrClaimed)
	}
	if err := two.Release(ctx, taken); err != nil {
		t.Fatal(err)
	}
	if next := claim(t, one, "a", "one", later); next.Token <= taken.Token {
		t.Errorf("after a release: token %d after %d", next.Token, taken.Token)
	}
	if err := two.Release(ctx, other); err != nil {
		t.Fatal(err)
	}
}

func testClaimOfNoServer(t *testing.T, k Kind) {
	s := fleet(t, k)
	c := claim(t, s, store.Shared+"place", "one", now)
	if _, err := s.Claim(t.Context(), store.Shared+"place", "two", ttl, now); !errors.Is(err, store.ErrClaimed) {
		t.Errorf("got %v, want %v", err, store.ErrClaimed)
	}
	if err := s.Release(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	claim(t, s, store.Shared+"place", "two", now)
}

// writes are all that a fenced store writes of its server.
func writes(t testing.TB, run int64, epoch uint64) map[string]func(store.Store) error {
	ctx, yes := t.Context(), func([]store.Server) error { return nil }
	return map[string]func(store.Store) error{
		"move": func(s store.Store) error {
			return s.Move(ctx, "a", epoch, inventory.Serving, inventory.Draining, "x", now)
		},
		"checked": func(s store.Store) error {
			return s.MoveChecked(ctx, "a", epoch, inventory.Serving, inventory.Draining, "x", now, yes)
		},
		"life": func(s store.Store) error {
			_, err := s.BeginLife(ctx, "a", epoch, inventory.Serving, "x", now, nil)
			return err
		},
		"joined":   func(s store.Store) error { return s.Joined(ctx, "a", epoch, store.Joined{At: now}) },
		"health":   func(s store.Store) error { return s.SetHealth(ctx, "a", epoch, []byte("{}"), now) },
		"drained":  func(s store.Store) error { return s.SetDrained(ctx, "a", epoch, true) },
		"release":  func(s store.Store) error { return s.SetRelease(ctx, "a", epoch, "x") },
		"taint":    func(s store.Store) error { return s.Taint(ctx, "a", epoch, "x", now, now, yes) },
		"hold":     func(s store.Store) error { return s.Hold(ctx, "a", epoch, now) },
		"ticket":   func(s store.Store) error { return s.PutTicket(ctx, "a", epoch, [32]byte{9}, now.Add(time.Hour)) },
		"use":      func(s store.Store) error { return s.UseTicket(ctx, [32]byte{1}, "a", epoch, now) },
		"drain":    func(s store.Store) error { return s.OrderDrain(ctx, "a", epoch, time.Minute) },
		"failure":  func(s store.Store) error { return s.BootFailed(ctx, "a", epoch, "x", "", now) },
		"restart":  func(s store.Store) error { return s.OrderRestart(ctx, "a", store.Restart{Epoch: epoch}) },
		"delivery": func(s store.Store) error { return s.RestartDelivered(ctx, "a", epoch, now) },
		"extend": func(s store.Store) error {
			return s.Extend(ctx, "a", now, store.Extension{Epoch: epoch, Statement: []byte("x"), Sig: []byte("x")})
		},
		"journal": func(s store.Store) error {
			return s.Record(ctx, store.Entry{Run: run, Server: "a", Epoch: epoch, Step: "x", At: now})
		},
		"end": func(s store.Store) error {
			return s.EndRotation(ctx, store.Outcome{Server: "a", Epoch: epoch, At: now})
		},
		"login": func(s store.Store) error {
			_, err := s.AddLogin(ctx, store.Login{Server: "a", Epoch: epoch, Number: 1, At: now, Seen: now})
			return err
		},
	}
}

// Whoever lost its claim writes nothing of the server any more, and all of another server.
func testFenced(t *testing.T, k Kind) {
	ctx := t.Context()
	s := fleet(t, k, "a", "b")
	epoch := to(t, s, "a", inventory.Booting)
	if err := s.PutTicket(ctx, "a", epoch, [32]byte{1}, now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	for _, next := range []inventory.State{inventory.Attesting, inventory.Baking, inventory.Serving} {
		if err := s.Move(ctx, "a", epoch, get(t, s, "a").State, next, "x", now); err != nil {
			t.Fatal(err)
		}
	}
	run, err := s.BeginRun(ctx, []byte("plan"), now)
	if err != nil {
		t.Fatal(err)
	}
	mine := claim(t, s, "a", "one", now)
	fenced := s.Fenced(mine)
	if err := fenced.SetRelease(ctx, "a", epoch, "7"); err != nil {
		t.Errorf("while the claim lasts: %v", err)
	}
	after := map[string]store.Claim{"released": mine}
	if err := s.Release(ctx, mine); err != nil {
		t.Fatal(err)
	}
	check := func(why string, f store.Store) {
		t.Helper()
		before := get(t, s, "a")
		for name, write := range writes(t, run, epoch) {
			if err := write(f); !errors.Is(err, store.ErrFenced) {
				t.Errorf("%s, %s: got %v, want %v", why, name, err, store.ErrFenced)
			}
		}
		if got := get(t, s, "a"); fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", before) {
			t.Errorf("%s: it wrote\n%+v over\n%+v", why, got, before)
		}
	}
	check("released", s.Fenced(after["released"]))
	mine = claim(t, s, "a", "one", now)
	later := k.Lapse(t, s, mine)
	claim(t, s, "a", "two", later)
	check("taken over", s.Fenced(mine))
	if j, err := s.Journal(ctx, "a"); err != nil || len(j) != 0 {
		t.Errorf("journal: got %v, %v", j, err)
	}
	if _, err := s.Fenced(mine).BeginLife(ctx, "b", 0, inventory.New, "x", now, nil); err != nil {
		t.Errorf("of another server: %v", err)
	}
}

// Of writers with the old claim and a new claim that is made meanwhile: once the claim is made, no write of the old holder comes.
func testFencedMeanwhile(t *testing.T, k Kind) {
	ctx, open := t.Context(), k.Open(t)
	one, two := open(t), open(t)
	add(t, one, "a")
	epoch := to(t, one, "a", inventory.Booting)
	mine := claim(t, one, "a", "one", now)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	begun := make(chan struct{}, 4)
	for i := range 4 {
		wg.Go(func() {
			f := one.Fenced(mine)
			for n := 0; ; n++ {
				if n == 2 {
					begun <- struct{}{}
				}
				err := f.SetRelease(ctx, "a", epoch, fmt.Sprintf("old %d.%d", i, n))
				if errors.Is(err, store.ErrFenced) {
					return
				}
				if err != nil {
					t.Errorf("writer %d: %v", i, err)
					return
				}
				select {
				case <-stop:
					t.Errorf("writer %d writes after the claim was lost", i)
					return
				default:
				}
			}
		})
	}
	for range 4 {
		<-begun
	}
	later := k.Lapse(t, two, mine)
	theirs := claim(t, two, "a", "two", later)
	if err := two.Fenced(theirs).SetRelease(ctx, "a", epoch, "new"); err != nil {
		t.Error(err)
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(time.Minute):
		close(stop)
		<-done
	}
	if got := get(t, two, "a"); got.Release != "new" {
		t.Errorf("got %q: the old holder wrote over the new one", got.Release)
	}
}

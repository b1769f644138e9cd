package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"mayfly/inventory"
	"mayfly/inventory/store"
)

func testCancelRun(t *testing.T, k Kind) {
	ctx, s := t.Context(), fleet(t, k)
	if err := s.CancelRun(ctx, 1, "alice", now); !errors.Is(err, store.ErrStale) {
		t.Errorf("no run: got %v, want %v", err, store.ErrStale)
	}
	if _, ok, err := s.LastRun(ctx); ok || err != nil {
		t.Errorf("no run ended: got %v, %v", ok, err)
	}
	id, err := s.BeginRun(ctx, []byte("plan"), now)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.CancelRun(ctx, id, "alice", now.Add(1)); err != nil {
		t.Fatal(err)
	}
	if err := s.CancelRun(ctx, id, "bob", now.Add(2)); !errors.Is(err, store.ErrStale) {
		t.Errorf("cancelled twice: got %v, want %v", err, store.ErrStale)
	}
	if r, ok, err := s.OpenRun(ctx); err != nil || !ok || r.By != "alice" || !r.Cancelled.Equal(now.Add(1)) {
		t.Errorf("got %+v, %v, %v", r, ok, err)
	}
	if err := s.EndRun(ctx, id, "cancelled", now.Add(3)); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := s.OpenRun(ctx); ok || err != nil {
		t.Errorf("after its end: open %v, %v", ok, err)
	}
	if r, ok, err := s.LastRun(ctx); err != nil || !ok || r.ID != id || string(r.Plan) != "plan" || r.Result != "cancelled" || r.By != "alice" || !r.Ended.Equal(now.Add(3)) {
		t.Errorf("got %+v, %v, %v", r, ok, err)
	}
}

// testBigPlan: of many servers, and of what cannot be compressed.
func testBigPlan(t *testing.T, k Kind) {
	ctx, s := t.Context(), fleet(t, k)
	plan := make([]byte, 5<<20)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range plan {
		plan[i] = byte(r.Uint32())
	}
	id, err := s.BeginRun(ctx, plan, now)
	if err != nil {
		t.Fatal(err)
	}
	if got, ok, err := s.OpenRun(ctx); err != nil || !ok || got.ID != id || !bytes.Equal(got.Plan, plan) {
		t.Errorf("got %d bytes, %v, %v", len(got.Plan), ok, err)
	}
	if _, err := s.BeginRun(ctx, plan, now); !errors.Is(err, store.ErrRunOpen) {
		t.Errorf("got %v, want %v", err, store.ErrRunOpen)
	}
	if got, ok, err := s.OpenRun(ctx); err != nil || !ok || !bytes.Equal(got.Plan, plan) {
		t.Errorf("after another was refused: got %d bytes, %v, %v", len(got.Plan), ok, err)
	}
}

func testJournal(t *testing.T, k Kind) {
	ctx, s := t.Context(), fleet(t, k, "a", "b")
	if err := s.Record(ctx, store.Entry{Run: 7, Server: "a", Step: "x", At: now}); err == nil {
		t.Error("a record of no run was taken")
	}
	run, err := s.BeginRun(ctx, []byte("plan"), now)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Record(ctx, store.Entry{Run: run, Server: "c", Step: "x", At: now}); err == nil {
		t.Error("a record of no server was taken")
	}
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := range 5 {
				if err := s.Record(ctx, store.Entry{Run: run, Server: []string{"a", "b"}[i%2], Epoch: uint64(i), Step: fmt.Sprint(n), Outcome: "ok", Detail: "d", At: now.Add(time.Duration(n))}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	got, err := s.Journal(ctx, "a")
	if err != nil || len(got) != 10 {
		t.Fatalf("got %d records, %v, want 10", len(got), err)
	}
	next := map[uint64]int{}
	for i, e := range got {
		if i > 0 && e.ID <= got[i-1].ID {
			t.Errorf("record %d comes after %d", e.ID, got[i-1].ID)
		}
		if e.Step != fmt.Sprint(next[e.Epoch]) || e.Server != "a" || e.Run != run || e.Outcome != "ok" || e.Detail != "d" {
			t.Errorf("got %+v", e)
		}
		next[e.Epoch]++
	}
}

func testEndRotation(t *testing.T, k Kind) {
	ctx, open := t.Context(), k.Open(t)
	one, two := open(t), open(t)
	add(t, one, "a", "b")
	o := store.Outcome{Server: "a", Epoch: 1, Run: 1, Release: "7", Served: true, Restarted: true, Attempts: 2, Failed: 1, Reason: "x", At: now}
	results := make(chan error, 8)
	var wg sync.WaitGroup
	for i := range 8 {
		s := []store.Store{one, two}[i%2]
		wg.Go(func() { results <- s.EndRotation(ctx, o) })
	}
	wg.Wait()
	close(results)
	ended := 0
	for err := range results {
		if err == nil {
			ended++
		} else if !errors.Is(err, store.ErrEnded) {
			t.Errorf("got %v, want %v", err, store.ErrEnded)
		}
	}
	if ended != 1 {
		t.Errorf("it ended %d times", ended)
	}
	second := store.Outcome{Server: "a", Epoch: 2, Release: "8", At: now.Add(-time.Hour)}
	other := store.Outcome{Server: "b", Epoch: 1, Release: "7", At: now}
	for _, o := range []store.Outcome{second, other} {
		if err := one.EndRotation(ctx, o); err != nil {
			t.Fatal(err)
		}
	}
	if err := one.EndRotation(ctx, store.Outcome{Server: "c", Epoch: 1, At: now}); !errors.Is(err, store.ErrUnknown) {
		t.Errorf("no such server: got %v, want %v", err, store.ErrUnknown)
	}
	for _, tt := range []struct {
		release string
		since   time.Time
		want    []store.Outcome
	}{{"", time.Time{}, []store.Outcome{second, o, other}}, {"7", time.Time{}, []store.Outcome{o, other}}, {"", now, []store.Outcome{o, other}}, {"8", now, nil}} {
		got, err := two.Outcomes(ctx, tt.release, tt.since)
		if err != nil || fmt.Sprint(got) != fmt.Sprint(tt.want) {
			t.Errorf("%q since %v: got %v, %v, want %v", tt.release, tt.since, got, err, tt.want)
		}
	}
}

func testPause(t *testing.T, k Kind) {
	ctx, open := t.Context(), k.Open(t)
	one, two := open(t), open(t)
	if p, err := one.Paused(ctx); err != nil || p != (store.Pause{}) {
		t.Errorf("at first: got %+v, %v", p, err)
	}
	for _, want := range []store.Pause{{On: true, By: "alice", Why: "w", At: now}, {On: false, By: "bob", At: now.Add(1)}} {
		if err := one.SetPause(ctx, want); err != nil {
			t.Fatal(err)
		}
		if p, err := two.Paused(ctx); err != nil || p != want {
			t.Errorf("got %+v, %v, want %+v", p, err, want)
		}
	}
}

// testMarks: what is bad stays bad, whoever says what.
func testMarks(t *testing.T, k Kind) {
	ctx, open := t.Context(), k.Open(t)
	one, two := open(t), open(t)
	if _, ok, err := one.InUse(ctx); ok || err != nil {
		t.Errorf("at first: in use %v, %v", ok, err)
	}
	use := store.Use{Version: 2, Digest: "b", By: "alice", At: now}
	if err := one.UseRelease(ctx, use); err != nil {
		t.Fatal(err)
	}
	if got, ok, err := two.InUse(ctx); err != nil || !ok || got != use {
		t.Errorf("got %+v, %v, %v", got, ok, err)
	}
	mark := func(mark, why string) error {
		return one.MarkRelease(ctx, store.Mark{Version: 2, Digest: "b", Mark: mark, Why: why, By: "bob", At: now})
	}
	if err := errors.Join(mark(store.Good, "arrived"), mark(store.Good, "again"), mark(store.Bad, "hangs"), mark(store.Bad, "again")); err != nil {
		t.Fatal(err)
	}
	if err := mark(store.Good, "after all"); !errors.Is(err, store.ErrBad) {
		t.Errorf("bad, and then good: got %v, want %v", err, store.ErrBad)
	}
	if err := mark("fine", ""); err == nil {
		t.Error("a mark that is none was taken")
	}
	if err := two.UseRelease(ctx, use); !errors.Is(err, store.ErrBad) {
		t.Errorf("using a bad one: got %v, want %v", err, store.ErrBad)
	}
	other := store.Use{Version: 2, Digest: "c", At: now}
	if err := two.UseRelease(ctx, other); err != nil {
		t.Errorf("the same version with other bytes: %v", err)
	}
	if got, _, err := one.InUse(ctx); err != nil || got != other {
		t.Errorf("got %+v, %v", got, err)
	}
	if err := one.MarkRelease(ctx, store.Mark{Version: 1, Digest: "z", Mark: store.Good, At: now}); err != nil {
		t.Fatal(err)
	}
	all, err := two.Marks(ctx)
	if err != nil || len(all) != 2 || all[0].Version != 1 || all[1].Mark != store.Bad || all[1].Why != "hangs" {
		t.Errorf("got %+v, %v", all, err)
	}
}

// testFloor: many that take servers out against a floor, from two openers: the floor holds at every moment.
func testFloor(t *testing.T, k Kind) {
	ctx, open := t.Context(), k.Open(t)
	stores := []store.Store{open(t), open(t), open(t)}
	var names []string
	for i := range 9 {
		names = append(names, fmt.Sprintf("s%d", i))
	}
	add(t, stores[0], names...)
	for _, n := range names {
		to(t, stores[0], n, inventory.Serving)
	}
	const floor = 4
	errFloor := errors.New("below the floor")
	var wg sync.WaitGroup
	results := make(chan error, len(names))
	for i, n := range names {
		wg.Go(func() {
			results <- stores[i%3].MoveChecked(ctx, n, 1, inventory.Serving, inventory.Draining, "", now, func(all []store.Server) error {
				serving := 0
				for _, v := range all {
					if v.State == inventory.Serving {
						serving++
					}
				}
				if serving <= floor {
					return errFloor
				}
				return nil
			})
		})
	}
	wg.Wait()
	close(results)
	out := 0
	for err := range results {
		if err == nil {
			out++
		} else if !errors.Is(err, errFloor) {
			t.Errorf("got %v", err)
		}
	}
	if want := len(names) - floor; out != want {
		t.Errorf("%d were taken out, want %d", out, want)
	}
}

// testChecks: a check sees all servers as they are, in order, and what it refuses changes nothing.
func testChecks(t *testing.T, k Kind) {
	ctx, open := t.Context(), k.Open(t)
	one, two := open(t), open(t)
	add(t, one, "b", "a")
	to(t, one, "a", inventory.Serving)
	see := func(s store.Store, want string) {
		t.Helper()
		no := errors.New("no")
		got := ""
		err := s.MoveChecked(ctx, "a", 1, inventory.Serving, inventory.Draining, "", now, func(all []store.Server) error {
			got = ""
			for _, v := range all {
				got += fmt.Sprintf("%s %s %d %q; ", v.Name, v.State, v.Epoch, v.Health)
			}
			return no
		})
		if !errors.Is(err, no) || got != want {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
	see(one, `a serving 1 ""; b new 0 ""; `)
	see(two, `a serving 1 ""; b new 0 ""; `)
	if _, err := two.BeginLife(ctx, "b", 0, inventory.New, "", now, nil); err != nil {
		t.Fatal(err)
	}
	see(one, `a serving 1 ""; b wiping 1 ""; `)
	add(t, one, "aa")
	see(two, `a serving 1 ""; aa new 0 ""; b wiping 1 ""; `)
	if got := get(t, one, "a"); got.State != inventory.Serving {
		t.Errorf("it moved to %s", got.State)
	}
}

// testHammer: several openers take servers through their lives at once; nothing is lost and nothing comes twice.
func testHammer(t *testing.T, k Kind) {
	const openers, servers, rounds = 3, 4, 4
	ctx, open := t.Context(), k.Open(t)
	var names []string
	for i := range servers {
		names = append(names, fmt.Sprintf("s%d", i))
	}
	first := open(t)
	add(t, first, names...)
	var wg sync.WaitGroup
	for o := range openers {
		s := open(t)
		for _, name := range names {
			wg.Go(func() {
				holder := fmt.Sprintf("%d of %s", o, name)
				for done := 0; done < rounds; {
					c, err := s.Claim(ctx, name, holder, time.Hour, now)
					if errors.Is(err, store.ErrClaimed) {
						if ctx.Err() != nil {
							t.Error("nobody gives the server back")
							return
						}
						continue
					}
					if err != nil {
						t.Error(err)
						return
					}
					f := s.Fenced(c)
					have, err := f.Server(ctx, name)
					if err == nil {
						var epoch uint64
						if epoch, err = f.BeginLife(ctx, name, have.Epoch, have.State, holder, now, func([]store.Server) error { return nil }); err == nil {
							err = errors.Join(f.SetRelease(ctx, name, epoch, holder), f.EndRotation(ctx, store.Outcome{Server: name, Epoch: epoch, At: now}),
								f.Move(ctx, name, epoch, inventory.Wiping, inventory.Quarantined, holder, now))
						}
					}
					if err = errors.Join(err, s.Release(ctx, c)); err != nil {
						t.Error(err)
						return
					}
					done++
				}
			})
		}
	}
	wg.Wait()
	for _, name := range names {
		if got := get(t, first, name); got.Epoch != openers*rounds || got.State != inventory.Quarantined {
			t.Errorf("%s: got %s in life %d, want life %d", name, got.State, got.Epoch, openers*rounds)
		}
	}
	events, err := first.Events(ctx, 0)
	if err != nil || len(events) != openers*rounds*servers*2 {
		t.Errorf("got %d events, %v", len(events), err)
	}
	for i, e := range events {
		if i > 0 && e.ID <= events[i-1].ID {
			t.Errorf("event %d comes after %d", e.ID, events[i-1].ID)
		}
	}
	if out, err := first.Outcomes(ctx, "", time.Time{}); err != nil || len(out) != openers*rounds*servers {
		t.Errorf("got %d ends, %v", len(out), err)
	}
}

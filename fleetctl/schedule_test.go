package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mayfly/fleetctl/rotate"
	"mayfly/inventory/store"
)

func TestSchedule(t *testing.T) {
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	const hour = time.Hour
	for _, tt := range []struct {
		name string
		b    beginning
		want bool
		wait time.Duration
	}{
		{"the zero value never begins", beginning{}, false, scheduleLook},
		{"no schedule, and a run is open", beginning{open: true, tried: -1}, false, scheduleLook},
		{"no run ever", beginning{every: hour, tried: -1}, true, 0},
		{"the last run is young", beginning{every: hour, began: now.Add(-20 * time.Minute), tried: -1}, false, 40 * time.Minute},
		{"the last run is an interval old", beginning{every: hour, began: now.Add(-hour), tried: -1}, true, 0},
		{"missed for days: one run", beginning{every: hour, began: now.Add(-72 * hour), tried: -1}, true, 0},
		{"missed for days, and made up just now", beginning{every: hour, began: now, tried: 0}, false, hour},
		{"nothing was due just now", beginning{every: hour, began: now.Add(-72 * hour), tried: time.Minute}, false, 59 * time.Minute},
		{"another controller began one", beginning{every: hour, began: now.Add(-10 * time.Minute), known: 10 * time.Minute, tried: 2 * hour}, false, 50 * time.Minute},
		{"the clock went back by days", beginning{every: hour, began: now.Add(72 * hour), known: 20 * time.Minute, tried: -1}, false, 40 * time.Minute},
		{"the clock went back by days, an interval ago", beginning{every: hour, began: now.Add(72 * hour), known: hour, tried: hour}, true, 0},
		{"the clock jumped ahead by days", beginning{every: hour, began: now.Add(-72 * hour), known: 10 * time.Minute, tried: 10 * time.Minute}, false, 50 * time.Minute},
		{"a run is open", beginning{every: hour, open: true, began: now, tried: -1}, true, 0},
		{"a run is open, which this process has left just now", beginning{every: hour, open: true, began: now, tried: time.Second}, false, 9 * time.Second},
		{"a run is open, in a pause: what is in flight goes on", beginning{every: hour, open: true, paused: true, began: now, tried: -1}, true, 0},
		{"paused", beginning{every: hour, paused: true, tried: -1}, false, scheduleLook},
		{"paused, and the last one failed", beginning{every: hour, paused: true, tried: hour, failed: 1}, false, scheduleLook},
		{"failed just now", beginning{every: hour, tried: time.Second, failed: 1}, false, 29 * time.Second},
		{"failed, and rested", beginning{every: hour, tried: 30 * time.Second, failed: 1}, true, 0},
		{"failed three times", beginning{every: hour, tried: 30 * time.Second, failed: 3}, false, 90 * time.Second},
		{"failed for ever", beginning{every: hour, tried: 0, failed: 1 << 30}, false, longBackOff},
		{"failed, and a run is open", beginning{every: hour, open: true, tried: time.Second, failed: 1}, false, 29 * time.Second},
	} {
		begin, wait, why := schedule(tt.b, now)
		if begin != tt.want || wait != tt.wait || why == "" {
			t.Errorf("%s: got %v after %v (%q), want %v after %v", tt.name, begin, wait, why, tt.want, tt.wait)
		}
	}
}

// runs is a store in memory that several schedulers share, with a clock of the wall that may step.
type runs struct {
	mu     sync.Mutex // guards the rest
	last   store.Run
	open   bool
	paused bool
	ill    error
	step   time.Duration
}

// with has what a test looks at and changes to itself.
func (r *runs) with(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

func (r *runs) OpenRun(context.Context) (store.Run, bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open {
		return r.last, true, r.ill
	}
	return store.Run{}, false, r.ill
}

func (r *runs) LastRun(context.Context) (store.Run, bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last, !r.last.Began.IsZero(), r.ill
}

func (r *runs) Paused(context.Context) (store.Pause, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return store.Pause{On: r.paused}, r.ill
}

func (r *runs) wall() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Now().Add(r.step)
}

// begin is a rotation that takes a minute.
func (r *runs) begin(began *[]time.Time, here *bool, t *testing.T) func(context.Context) (rotate.Result, error) {
	return func(ctx context.Context) (rotate.Result, error) {
		if *here {
			t.Error("two runs at once in one process")
		}
		*here = true
		defer func() { *here = false }()
		*began = append(*began, time.Now())
		var id int64
		r.with(func() {
			if !r.open {
				r.last, r.open = store.Run{ID: r.last.ID + 1, Began: time.Now().Add(r.step), Plan: []byte(`{"rules":{}}`)}, true
			}
			id = r.last.ID
		})
		select {
		case <-ctx.Done():
			return rotate.Result{Result: "interrupted"}, rotate.ErrInterrupted
		case <-time.After(time.Minute):
		}
		r.with(func() {
			if r.last.ID == id {
				r.open = false
			}
		})
		return rotate.Result{Run: id, Result: "done", Servers: []rotate.Rebuilt{{Name: "se-1"}}}, nil
	}
}

func TestSchedulerBeginsOnePerInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := &runs{last: store.Run{ID: 1, Began: time.Now().Add(-100 * time.Hour), Plan: []byte(`{"rules":{}}`)}} // the controller was down for days
		var began [2][]time.Time
		var here [2]bool
		ctx, cancel := context.WithCancel(t.Context())
		ends := make(chan struct{})
		for i := range 2 {
			s := &scheduler{store: shared, every: func() time.Duration { return time.Hour }, run: shared.begin(&began[i], &here[i], t), wall: shared.wall,
				log: slog.New(slog.DiscardHandler)}
			go func() { s.loop(ctx); ends <- struct{}{} }()
		}
		time.Sleep(10*time.Hour + 30*time.Minute)
		last := func() (id int64) { shared.with(func() { id = shared.last.ID }); return id }
		first := last()
		if first != 12 { // the one that was missed, and one each hour
			t.Errorf("got %d runs in ten hours and a half, want 11 after the old one: missed ones are made up once, and two controllers share", first-1)
		}
		shared.with(func() { shared.step = -72 * time.Hour }) // the clock goes back
		time.Sleep(10 * time.Hour)
		if n := last() - first; n < 9 || n > 11 {
			t.Errorf("got %d runs in ten hours after the clock went back, want 10", n)
		}
		second := last()
		shared.with(func() { shared.step = 72 * time.Hour }) // and ahead
		time.Sleep(10 * time.Hour)
		if n := last() - second; n < 9 || n > 11 {
			t.Errorf("got %d runs in ten hours after the clock jumped ahead, want 10", n)
		}
		third := last()
		shared.with(func() { shared.paused = true })
		time.Sleep(10 * time.Hour)
		if last() != third {
			t.Errorf("got %d runs in a pause", last()-third)
		}
		shared.with(func() { shared.paused = false })
		time.Sleep(30 * time.Minute)
		if last() != third+1 {
			t.Errorf("got %d runs after a pause, want one at once", last()-third)
		}
		cancel()
		<-ends
		<-ends
	})
}

// TestSchedulerIsNotPutOff: who rebuilds a server by hand now and then keeps no scheduled run from its time.
func TestSchedulerIsNotPutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := &runs{}
		var began []time.Time
		here := false
		ctx, cancel := context.WithCancel(t.Context())
		ends := make(chan struct{})
		s := &scheduler{store: shared, every: func() time.Duration { return 12 * time.Hour }, run: shared.begin(&began, &here, t), wall: shared.wall, log: slog.New(slog.DiscardHandler)}
		go func() { s.loop(ctx); close(ends) }()
		for range 40 { // ten days
			time.Sleep(6*time.Hour - 5*time.Minute)
			shared.with(func() {
				shared.last = store.Run{ID: shared.last.ID + 1, Began: time.Now(), Plan: []byte(`{"rules":{"mode":"single","only":["se-1"]}}`)}
			})
			time.Sleep(5 * time.Minute)
		}
		cancel()
		<-ends
		if len(began) < 19 || len(began) > 22 {
			t.Errorf("%d scheduled runs in ten days, want one each twelve hours", len(began))
		}
	})
}

func TestSchedulerSaysAnErrorOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := &runs{}
		var log bytes.Buffer // the loop writes it, and is waited for before it is read
		tries, err := 0, error(nil)
		var told []string
		s := &scheduler{store: shared, every: func() time.Duration { return time.Hour }, wall: time.Now, log: slog.New(slog.NewTextHandler(&log, nil)),
			ended: func(result string, _ time.Time, _ int) { told = append(told, result) },
			run: func(context.Context) (rotate.Result, error) {
				shared.mu.Lock()
				defer shared.mu.Unlock()
				tries++
				if err != nil {
					return rotate.Result{}, err
				}
				return rotate.Result{Result: "nothing due"}, nil
			}}
		ctx, cancel := context.WithCancel(t.Context())
		ends := make(chan struct{})
		err = errors.New("no signer")
		go func() { s.loop(ctx); close(ends) }()
		time.Sleep(time.Hour)
		synctest.Wait()
		if tries < 7 || tries > 9 {
			t.Errorf("got %d tries in an hour, want them ever more seldom, and not given up", tries)
		}
		if n := strings.Count(log.String(), "no signer"); n != 1 {
			t.Errorf("the error was said %d times:\n%s", n, log.String())
		}
		shared.with(func() { shared.ill = errors.New("the store is away") })
		before := tries
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := strings.Count(log.String(), "the store is away"); n != 1 || tries != before {
			t.Errorf("the store's error was said %d times, and %d rotations were tried", n, tries-before)
		}
		shared.with(func() { shared.ill, err = nil, nil })
		time.Sleep(20 * time.Minute)
		synctest.Wait()
		if tries != before+1 || !strings.Contains(log.String(), "work again") {
			t.Errorf("got %d tries once all was well, want one:\n%s", tries-before, log.String())
		}
		if told[len(told)-1] != "nothing due" || told[0] != "failed" {
			t.Errorf("told %q", told)
		}
		cancel()
		<-ends
	})
}

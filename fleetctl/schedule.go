package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"mayfly/fleetctl/rotate"
	"mayfly/inventory/store"
)

// Implementation constants of the schedule.
const (
	scheduleLook  = 5 * time.Second  // how often store and policy are looked at
	firstBackOff  = 30 * time.Second // after a run that failed; doubled by each further one
	longBackOff   = 15 * time.Minute
	joinsAtLeast  = 10 * time.Second // between two looks at one open run that this process left
	maxBackOffExp = 6
)

// beginning is what a scheduled rotation is decided from. The clock of the wall may step: what this process saw itself is counted by the
// monotonic clock, and the store's times are believed only within that.
type beginning struct {
	every  time.Duration // between the beginnings of two runs; 0: never
	paused bool
	open   bool          // a run is not finished, whoever began it
	began  time.Time     // when the newest run began; zero: there was none
	known  time.Duration // for how long this process has known that run to be the newest
	tried  time.Duration // since this process last tried; negative: it has not
	failed int           // tries in a row that failed
}

// schedule says whether a rotation begins now, and if not, how long it waits at most and why. A run that was missed is made up by one run, however
// many were.
func schedule(b beginning, now time.Time) (begin bool, wait time.Duration, why string) {
	hasTried := b.tried >= 0
	switch rest := backOff(b.failed) - b.tried; {
	case b.every <= 0:
		return false, scheduleLook, "no schedule"
	case hasTried && b.failed > 0 && rest > 0:
		return false, rest, "the last one failed"
	case b.open && hasTried && b.tried < joinsAtLeast:
		return false, joinsAtLeast - b.tried, "another process carries the open run on"
	case b.open:
		return true, 0, "a run is open"
	case b.paused:
		return false, scheduleLook, "paused"
	case hasTried && b.failed > 0:
		return true, 0, "the last one failed"
	}
	if !b.began.IsZero() {
		wait = b.every - now.Sub(b.began)
		// The clock went back, or another controller's is ahead: nobody waits longer than for one whole interval.
		wait = min(wait, b.every-b.known)
	}
	if hasTried {
		wait = max(wait, b.every-b.tried) // when nothing was due no run was begun, and a clock that jumps begins none early
	}
	if wait > 0 {
		return false, wait, "not yet"
	}
	return true, 0, "due"
}

// backOff is how long a schedule rests after so many failures.
func backOff(failed int) time.Duration {
	if failed <= 0 {
		return 0
	}
	return min(firstBackOff<<min(failed-1, maxBackOffExp), longBackOff)
}

// scheduleStore is what a schedule asks the store.
type scheduleStore interface {
	OpenRun(ctx context.Context) (store.Run, bool, error)
	LastRun(ctx context.Context) (store.Run, bool, error)
	Paused(ctx context.Context) (store.Pause, error)
}

// scheduler begins rotations, one after another, in one goroutine: never two at once.
type scheduler struct {
	store scheduleStore
	every func() time.Duration                              // of the policy in force
	run   func(ctx context.Context) (rotate.Result, error)  // finishes an open run, or begins one
	ended func(result string, next time.Time, failures int) // may be nil
	wall  func() time.Time
	log   *slog.Logger

	at     beginning
	newest time.Time // of the newest run known, since
	byHand bool      // people asked for it
	seen   time.Time
	tried  time.Time
	said   string
}

// loop runs until ctx ends.
func (s *scheduler) loop(ctx context.Context) {
	s.seen, s.at.tried = time.Now(), -1
	for ctx.Err() == nil {
		wait, err := s.step(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			s.at.failed++
			s.tried = time.Now()
			wait = backOff(s.at.failed)
			s.say(err)
			s.tell("failed", wait)
		}
		timer := time.NewTimer(min(wait, scheduleLook))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// step looks once, and carries one run to its end if it is time.
func (s *scheduler) step(ctx context.Context) (wait time.Duration, err error) {
	s.at.every = s.every()
	if s.at.every <= 0 {
		return scheduleLook, nil
	}
	if !s.tried.IsZero() {
		s.at.tried = time.Since(s.tried)
	}
	if err := s.look(ctx); err != nil {
		if s.at.failed > 0 && s.at.tried >= 0 && s.at.tried < backOff(s.at.failed) {
			return backOff(s.at.failed) - s.at.tried, nil // said already
		}
		return 0, err
	}
	begin, wait, _ := schedule(s.at, s.wall())
	if !begin {
		return wait, nil
	}
	s.tried = time.Now()
	result, err := s.run(ctx)
	switch {
	case ctx.Err() != nil || errors.Is(err, rotate.ErrInterrupted):
		return 0, ctx.Err()
	case err != nil && (result.Result == "" || result.Result == "interrupted"):
		return 0, fmt.Errorf("a scheduled rotation: %w", err)
	case err != nil: // it has ended, not everything in it well
		s.at.failed = 0
		s.say(fmt.Errorf("a scheduled rotation ended as %q: %w", result.Result, err))
	default:
		if s.at.failed > 0 {
			s.log.Info("scheduled rotations work again", "failures", s.at.failed)
		}
		s.at.failed, s.said = 0, ""
		if len(result.Servers) > 0 {
			s.log.Info("a scheduled rotation has ended", "run", result.Run, "result", result.Result, "servers", len(result.Servers))
		}
	}
	s.tell(result.Result, s.at.every)
	return scheduleLook, nil
}

// look reads what the store knows of runs and pauses.
func (s *scheduler) look(ctx context.Context) error {
	pause, err := s.store.Paused(ctx)
	if err != nil {
		return err
	}
	newest, open, err := s.store.OpenRun(ctx)
	if err != nil {
		return err
	}
	if !open {
		if newest, _, err = s.store.LastRun(ctx); err != nil {
			return err
		}
	}
	if !newest.Began.Equal(s.newest) {
		s.newest, s.seen, s.byHand = newest.Began, time.Now(), !rotate.IsScheduled(newest)
	}
	s.at.paused, s.at.open, s.at.began, s.at.known = pause.On, open, newest.Began, time.Since(s.seen)
	if s.byHand { // it rebuilt what people asked for, and puts nothing off
		s.at.began = time.Time{}
	}
	return nil
}

// say says an error once, until it is another.
func (s *scheduler) say(err error) {
	if s.said != err.Error() {
		s.said = err.Error()
		s.log.Error("the schedule", "error", err)
	}
}

func (s *scheduler) tell(result string, next time.Duration) {
	if s.ended != nil {
		s.ended(result, s.wall().Add(next), s.at.failed)
	}
}

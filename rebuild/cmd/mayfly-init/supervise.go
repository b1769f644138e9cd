package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Restart policy: the pause doubles from firstPause to maxPause and starts over after a run of steadyRun.
const (
	firstPause = 250 * time.Millisecond
	maxPause   = 15 * time.Second
	steadyRun  = time.Minute
	stopLimit  = 5 * time.Second
	afterLimit = 15 * time.Second
)

// States of a service in health messages, beside a cause.
const (
	stateRunning  = "running"
	stateStarting = "starting"
	stateOver     = "over" // it has ended, as it was told to
)

// spec is a service.
type spec struct {
	name  string
	path  string
	args  []string
	uid   int
	caps  []uintptr           // ambient capabilities of a service that is not root's
	users bool                // engineers' sessions are its children: bounded as those are
	said  func(io.ReadCloser) // reads what it says on stderr, to its end; nil: nobody does
	why   func() string       // what it said when it ended; nil: nothing is known
	after string              // waits until this service answers, or afterLimit
}

// process is a program that was started.
type process struct {
	pid  int
	done <-chan unix.WaitStatus
}

// supervisor keeps services running. start is the reaper's; tests have their own.
type supervisor struct {
	start  func(spec) (process, error)
	signal func(pid int, s unix.Signal) error

	mu     sync.Mutex        // guards the rest
	pids   map[string]int    // of running services
	states map[string]string // state of each service
	over   map[string]bool   // services that end by themselves and are not started again
	wg     sync.WaitGroup
}

func newSupervisor(start func(spec) (process, error)) *supervisor {
	return &supervisor{start: start, signal: unix.Kill, pids: make(map[string]int), states: make(map[string]string), over: make(map[string]bool)}
}

// run keeps one service running until ctx ends, then stops it.
func (s *supervisor) run(ctx context.Context, sp spec) {
	s.set(sp.name, stateStarting, 0)
	s.wg.Go(func() {
		s.wait(ctx, sp.after)
		pause := firstPause
		for ctx.Err() == nil {
			began := time.Now()
			cause := s.once(ctx, sp)
			if sp.why != nil && sleep(ctx, whyWait) {
				if why := sp.why(); why != "" {
					cause += ": " + why
				}
			}
			if s.isOver(sp.name) {
				cause = stateOver
			}
			s.set(sp.name, cause, 0)
			if cause == stateOver {
				return
			}
			if time.Since(began) >= steadyRun {
				pause = firstPause
			}
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
			pause = min(2*pause, maxPause)
		}
	})
}

// retire keeps a service from being started again once it has ended.
func (s *supervisor) retire(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over[name] = true
}

func (s *supervisor) isOver(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.over[name]
}

// wait lets another service answer first.
func (s *supervisor) wait(ctx context.Context, name string) {
	if name == "" {
		return
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(afterLimit)
	for s.state(name) != stateRunning {
		select {
		case <-ctx.Done():
			return
		case <-limit:
			return
		case <-tick.C:
		}
	}
}

// once runs a service to its end and returns the cause.
func (s *supervisor) once(ctx context.Context, sp spec) string {
	p, err := s.start(sp)
	if err != nil {
		return err.Error()
	}
	s.set(sp.name, stateStarting, p.pid)
	select {
	case status := <-p.done:
		return ended(status)
	case <-ctx.Done():
	}
	// A process that is gone already needs no signal.
	_ = s.signal(p.pid, unix.SIGTERM)
	select {
	case status := <-p.done:
		return ended(status)
	case <-time.After(stopLimit):
	}
	_ = s.signal(p.pid, unix.SIGKILL)
	return ended(<-p.done)
}

func ended(status unix.WaitStatus) string {
	if status.Signaled() {
		return fmt.Sprintf("ended by signal %d", status.Signal())
	}
	return fmt.Sprintf("exited with %d", status.ExitStatus())
}

func (s *supervisor) set(name, state string, pid int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.states[name] = state
	if pid == 0 {
		delete(s.pids, name)
	} else {
		s.pids[name] = pid
	}
}

// answered notes whether the running service answers.
func (s *supervisor) answered(name string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pids[name] == 0 {
		return // its cause of death stands
	}
	s.states[name] = stateRunning
	if err != nil {
		s.states[name] = stateStarting
	}
}

func (s *supervisor) state(name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.states[name]
}

// all returns a copy of the states, and whether every service runs and answers.
func (s *supervisor) all() (states map[string]string, ready bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ready = len(s.states) > 0
	for _, st := range s.states {
		ready = ready && st == stateRunning
	}
	return maps.Clone(s.states), ready
}

// reload tells a running service to read its files again.
func (s *supervisor) reload(name string) error {
	s.mu.Lock()
	pid := s.pids[name]
	s.mu.Unlock()
	if pid == 0 {
		return nil // it reads them when it starts
	}
	if err := s.signal(pid, unix.SIGHUP); err != nil {
		return fmt.Errorf("reloading %s: %w", name, err)
	}
	return nil
}

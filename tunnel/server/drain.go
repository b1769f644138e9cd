package server

import (
	"sync"
	"time"

	"mayfly/tunnel/wire"
)

// drain is the way out: begun once, done when nothing is in flight any more or the bound has passed. It never goes back.
type drain struct {
	mu       sync.Mutex
	begun    chan struct{} // closed when the drain begins
	since    time.Time
	deadline time.Time
	done     bool
	forced   bool
}

func newDrain() *drain { return &drain{begun: make(chan struct{})} }

// begin starts the drain. A second order may only bring the deadline nearer.
func (d *drain) begin(limit time.Duration, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	deadline := now.Add(limit)
	if d.deadline.IsZero() {
		d.since, d.deadline = now, deadline
		close(d.begun)
		return
	}
	if deadline.Before(d.deadline) {
		d.deadline = deadline
	}
}

// look takes what the sweep begun at now found, and returns true once, when the drain is done by it. A sweep from before the
// drain may have missed the last registration: it does not count.
func (d *drain) look(inFlight int, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.deadline.IsZero() || d.done || !now.After(d.since) {
		return false
	}
	switch {
	case inFlight == 0:
		d.done = true
	case !now.Before(d.deadline):
		d.done, d.forced = true, true
	}
	return d.done
}

func (d *drain) state() (draining, drained, forced bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.deadline.IsZero(), d.done, d.forced
}

// notice is what clients are told.
func (d *drain) notice(now time.Time) wire.Notice {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.deadline.IsZero() {
		return wire.Notice{}
	}
	return wire.Notice{
		Draining:         true,
		Deadline:         d.deadline.UTC().Truncate(time.Second),
		RemainingSeconds: max(0, int(d.deadline.Sub(now)/time.Second)),
	}
}

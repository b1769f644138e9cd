package bastion

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"mayfly/policies"
)

// Bounds of a drain.
const (
	DefaultDrain = 30 * time.Second // on TERM, if bastion.toml has no drain_limit
	MaxDrain     = 24 * time.Hour   // no session lasts longer
)

// drain is how a bastion ends: it accepts nobody, and lets who is in go on for a while.
type drain struct {
	asked chan time.Duration // by "bastion drain"

	mu    sync.Mutex
	until time.Time // zero: it does not end yet
}

// stopCause says why the last connections are cut.
type stopCause policies.Reason

func (c stopCause) Error() string { return string(c) }

// causeOf is the reason that a stopped context was given; none when the bastion has no drain.
func causeOf(ctx context.Context) policies.Reason {
	var cause stopCause
	errors.As(context.Cause(ctx), &cause)
	return policies.Reason(cause)
}

// order asks for the end within a limit; a second order may only shorten it.
func (d *drain) order(limit time.Duration, now time.Time) (until time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if end := now.Add(limit); d.until.IsZero() || end.Before(d.until) {
		d.until = end
	}
	select {
	case d.asked <- d.until.Sub(now):
	default: // one is under way and will look at until
	}
	return d.until
}

func (d *drain) end() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.until
}

// untilStopped waits for TERM, or for "bastion drain", and then closes the listening socket. A socket that the service manager holds goes
// on listening there: who connects meanwhile is served by the next bastion.
func (s *Server) untilStopped(ctx context.Context) {
	select {
	case <-ctx.Done():
		s.drain.order(s.config.DrainLimit.Std(), time.Now())
	case <-s.drain.asked:
	}
	s.listener.Close()
}

// finish lets the connections that are here end by themselves, up to the drain's end or a second signal, and then cuts the rest.
func (s *Server) finish(ctx context.Context, visits *sync.WaitGroup, end context.CancelCauseFunc) {
	done := make(chan struct{})
	go func() { visits.Wait(); close(done) }()
	until := s.drain.end()
	why := stopCause(drainLimit)
	if s.config.DrainLimit <= 0 && ctx.Err() != nil {
		why = ""
	} else {
		s.log.Info("draining: nobody is accepted, who is in may go on", "until", until.UTC())
	}
	bound := time.NewTimer(time.Until(until))
	defer bound.Stop()
	stopped := ctx.Done()
	if ctx.Err() != nil {
		stopped = nil
	}
	for waiting := true; waiting; {
		select {
		case <-done:
			return
		case <-bound.C:
			waiting = false
		case <-s.cutNow:
			why, waiting = stopCause(stopAtOnce), false
		case <-stopped: // TERM in a drain that was asked for: the configured bound counts from here
			stopped = nil
			bound.Reset(time.Until(s.drain.order(s.config.DrainLimit.Std(), time.Now())))
		case <-s.drain.asked:
			bound.Reset(time.Until(s.drain.end()))
		}
	}
	end(why)
	select {
	case <-done:
	case <-time.After(stopLimit):
		s.log.Error("some connections did not end in time")
	}
}

// Signals are what reaches a bastion while it serves, beside the end of its context.
type Signals struct {
	Reload <-chan os.Signal // read policy and host certificate again
	Cut    <-chan os.Signal // wait no longer for who is in
}

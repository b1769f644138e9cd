package rotate

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"mayfly/inventory/store"
)

// Specification constants of claims.
const (
	// ClaimTTL is how long a server waits for another holder when its own is dead.
	ClaimTTL = 30 * time.Second
	// claimShare is the part of a claim that has to be left when an effect begins: 1/claimShare. It is renewed that often too.
	claimShare = 3
)

// errLost says that the right to carry a server on is over. Somebody else may act on it by now, so nobody here does.
var errLost = errors.New("the claim was lost: another process may carry the server on")

// instant is a moment by two clocks that nobody sets: the monotonic one, and the one that also runs while the host sleeps.
type instant struct {
	mono time.Time
	boot time.Duration
}

func instantly() instant { return instant{time.Now(), sinceBoot()} }

// since is the time that has passed by the clock that says more.
func (i instant) since() time.Duration { return max(time.Since(i.mono), sinceBoot()-i.boot) }

func sinceBoot() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return 0 // Linux before 2.6.39; the monotonic clock counts alone
	}
	return time.Duration(t.Nano())
}

// hold is one server's claim while this process carries the server on. It renews itself until it is let go or lost.
type hold struct {
	store store.Store
	ttl   time.Duration
	ctx   context.Context // ends with the claim; effects run under it
	lose  context.CancelCauseFunc
	done  chan struct{} // closed when nothing renews it any more

	renewing sync.Mutex // one renewal at a time
	mu       sync.Mutex // guards the rest
	claim    store.Claim
	asked    instant // before the store gave the claim its present end: it lasts at least until asked + ttl
}

// take claims a server, or fails with store.ErrClaimed.
func (r *Runner) take(ctx context.Context, server string) (*hold, error) {
	h := &hold{store: r.Store, ttl: r.TTL, done: make(chan struct{}), asked: instantly()}
	r.at("claim")
	c, err := r.Store.Claim(ctx, server, r.Holder, r.TTL, time.Now())
	if err != nil {
		return nil, err
	}
	r.at("claimed")
	h.claim = c
	h.ctx, h.lose = context.WithCancelCause(context.WithoutCancel(ctx))
	go h.keep()
	return h, nil
}

// left is how long the claim lasts at least.
func (h *hold) left() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ttl - h.asked.since()
}

// keep renews the claim until it is let go, and ends its context when it is lost.
func (h *hold) keep() {
	defer close(h.done)
	over := time.AfterFunc(h.ttl, func() { h.lose(errLost) }) // also while a renewal gets no answer
	defer over.Stop()
	next := time.NewTimer(h.ttl / claimShare)
	defer next.Stop()
	for {
		select {
		case <-h.ctx.Done():
			return
		case <-next.C:
		}
		if err := h.renew(); errors.Is(err, store.ErrFenced) {
			h.lose(errLost)
			return
		}
		left := h.left()
		if left <= 0 {
			h.lose(errLost)
			return
		}
		over.Reset(left)
		next.Reset(max(min(h.ttl/claimShare, left/2), time.Millisecond))
	}
}

// renew asks for the claim to go on. What fails is tried again while the claim lasts; only another's claim is the end.
func (h *hold) renew() error {
	h.renewing.Lock()
	defer h.renewing.Unlock()
	h.mu.Lock()
	c := h.claim
	h.mu.Unlock()
	limited, cancel := context.WithTimeout(h.ctx, h.ttl/claimShare)
	defer cancel()
	asked := instantly()
	got, err := h.store.Renew(limited, c, h.ttl, time.Now())
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.claim, h.asked = got, asked
	return nil
}

// sure reports, right before an effect, whether enough of the claim is left by clocks that nobody sets. A process that was stopped and goes
// on asks here before it does anything.
func (h *hold) sure() error {
	if h.ctx.Err() != nil {
		return errLost
	}
	if h.left() > h.ttl/claimShare {
		return nil
	}
	if h.left() > 0 && h.renew() == nil && h.left() > h.ttl/claimShare {
		return nil
	}
	h.lose(errLost)
	return errLost
}

// lost reports whether the claim ended before it was let go.
func (h *hold) lost() bool { return errors.Is(context.Cause(h.ctx), errLost) }

// errLetGo ends a claim that is not needed any more.
var errLetGo = errors.New("the claim was let go")

// release lets the claim go, so that nobody has to wait for its end.
func (h *hold) release() {
	ours := !h.lost()
	h.lose(errLetGo)
	<-h.done
	if !ours {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), h.ttl/claimShare)
	defer cancel()
	h.mu.Lock()
	c := h.claim
	h.mu.Unlock()
	_ = h.store.Release(ctx, c) // one that cannot be let go ends by itself
}

// fenced is the store for this claim's holder.
func (h *hold) fenced() store.Store {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.store.Fenced(h.claim)
}

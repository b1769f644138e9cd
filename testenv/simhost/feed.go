package simhost

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"mayfly/inventory/store"
	"mayfly/rebuild/join"
	"mayfly/rebuild/ticket"
)

// Implementation constants.
const (
	drainsEvery = 20 * time.Millisecond // how often orders to drain are read
	healthEvery = 4 * time.Second       // plan.FreshFor is 15 s
	writers     = 4
	askAgain    = 200 * time.Millisecond // after a store did not answer
)

// Feed writes what hosts say into the store, as `fleetctl serve` does, until ctx ends. It returns what the store refused, which is none of the
// things that a life meets when it has ended meanwhile. A store that does not answer is asked again.
func (h *Hosts) Feed(ctx context.Context, s store.Store) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := make(chan struct{})
	for range writers {
		go func() {
			defer func() { done <- struct{}{} }()
			for {
				select {
				case <-ctx.Done():
					return
				case e := <-h.joined:
					if err := h.say(ctx, s, e); err != nil {
						cancel(err)
					}
				}
			}
		}()
	}
	go func() {
		defer func() { done <- struct{}{} }()
		h.beat(ctx, s)
	}()
	go func() {
		defer func() { done <- struct{}{} }()
		h.orders(ctx, s)
	}()
	for range writers + 2 {
		<-done
	}
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// say writes one thing that a host said.
func (h *Hosts) say(ctx context.Context, s store.Store, e event) error {
	for ctx.Err() == nil {
		err := h.write(ctx, s, e)
		if err == nil || over(err) {
			return nil
		}
		if final(err) {
			return fmt.Errorf("%s in life %d: %w", e.server, e.epoch, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(askAgain):
		}
	}
	return nil
}

func (h *Hosts) write(ctx context.Context, s store.Store, e event) error {
	now := time.Now()
	switch {
	case e.drained:
		return s.SetDrained(ctx, e.server, e.epoch, false)
	case e.refused != "":
		h.do(request{Op: "off", Server: e.server}) // the machine ends after its report
		return s.BootFailed(ctx, e.server, e.epoch, e.refused, "as the test says", now)
	}
	err := s.UseTicket(ctx, ticket.Hash(e.ticket), e.server, e.epoch, now)
	if err != nil && !errors.Is(err, store.ErrTicketUsed) { // used: by this very event, whose answer was lost
		return err
	}
	var t struct{ Deadline time.Time } // nobody here signs tickets, so nobody opens one either
	if err := json.Unmarshal(e.ticket, &t); err != nil {
		return err
	}
	j := store.Joined{BootID: e.bootID, HostKey: "h", TunnelKey: "t", At: now, Deadline: t.Deadline}
	if err := s.Joined(ctx, e.server, e.epoch, j); err != nil {
		return err
	}
	h.mu.Lock()
	if m := h.of(e.server); m.on && m.epoch == e.epoch {
		m.up = true
	}
	h.mu.Unlock()
	return s.SetHealth(ctx, e.server, e.epoch, healthy(e.bootID), now)
}

// over reports whether the life ended while the host spoke, or the store is being closed.
func over(err error) bool {
	return errors.Is(err, store.ErrStale) || errors.Is(err, context.Canceled)
}

// final reports whether asking again changes nothing.
func final(err error) bool {
	for _, x := range []error{store.ErrUnknown, store.ErrIllegal, store.ErrTicketUnknown, store.ErrTicketExpired, store.ErrTicketRevoked} {
		if errors.Is(err, x) {
			return true
		}
	}
	return false
}

// beat reports the health of everyone who lives.
func (h *Hosts) beat(ctx context.Context, s store.Store) {
	tick := time.NewTicker(healthEvery)
	defer tick.Stop()
	for {
		for _, e := range h.alive() {
			// What fails is said again with the next beat, and a life that went silent is seen as that.
			_ = s.SetHealth(ctx, e.server, e.epoch, healthy(e.bootID), time.Now())
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// orders hands orders to drain on.
func (h *Hosts) orders(ctx context.Context, s store.Store) {
	tick := time.NewTicker(drainsEvery)
	defer tick.Stop()
	for {
		if all, err := s.Drains(ctx); err == nil {
			for server, order := range all {
				h.drain(server, order.Epoch)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func healthy(bootID string) []byte {
	data, err := json.Marshal(join.Health{BootID: bootID, Ready: true, Services: map[string]string{"tunnel": "running"}})
	if err != nil {
		panic("simhost: internal error: " + err.Error())
	}
	return data
}

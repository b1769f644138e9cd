package etcd

import (
	"context"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"mayfly/inventory"
	"mayfly/inventory/store"
)

// Move takes a server from one state to another.
func (s *Store) Move(ctx context.Context, name string, epoch uint64, from, to inventory.State, cause string, now time.Time) error {
	return s.MoveChecked(ctx, name, epoch, from, to, cause, now, nil)
}

// MoveChecked is Move if check agrees.
func (s *Store) MoveChecked(ctx context.Context, name string, epoch uint64, from, to inventory.State, cause string, now time.Time, check store.Check) error {
	if to == inventory.Wiping {
		return fmt.Errorf("moving server %q to %s within life %d: only BeginLife ends a life: %w", name, to, epoch, store.ErrIllegal)
	}
	return s.move(ctx, name, epoch, from, to, cause, now, check, func(*change, *record) error { return nil })
}

// move is one change of a state with its event, if check, which may be nil, agrees; more is what else changes with it.
func (s *Store) move(ctx context.Context, name string, epoch uint64, from, to inventory.State, cause string, now time.Time, check store.Check, more func(*change, *record) error) error {
	return s.states(ctx, name, []string{s.key(keyServer, name), s.key(keyGuard)}, func(c *change) error {
		if check != nil {
			if err := s.checked(c, check); err != nil {
				return err
			}
		}
		if !inventory.Legal(from, to) {
			return fmt.Errorf("moving server %q from %s to %s: %w", name, from, to, store.ErrIllegal)
		}
		r, err := c.record(name)
		if err != nil {
			return err
		}
		if r.Tainted && r.Epoch == epoch && to != inventory.Wiping && to != inventory.Quarantined {
			return fmt.Errorf("moving server %q to %s: %w", name, to, store.ErrTainted)
		}
		if r.Epoch != epoch || r.State != from {
			return fmt.Errorf("moving server %q to %s: %w", name, to, stale(r, epoch, from))
		}
		r.State, r.Since, r.Cause = to, now.UTC(), cause
		if to == inventory.Booting {
			r.BootedAt = now.UTC()
		}
		if err := more(c, &r); err != nil {
			return err
		}
		g, err := c.guard()
		if err != nil {
			return err
		}
		g.Event++
		c.cmps = append(c.cmps, absent(s.eventKey(g.Event)))
		c.put(s.eventKey(g.Event), store.Event{ID: g.Event, At: now.UTC(), Server: name, From: string(from), To: string(to), Epoch: epoch, Cause: cause})
		c.put(s.key(keyGuard), g)
		c.save(r)
		return nil
	})
}

// checked asks check about all servers as they are at the guard's revision, which the change compares: if a state changes meanwhile, it
// is asked again.
func (s *Store) checked(c *change, check store.Check) error {
	var guarded int64
	if kv := c.read[s.key(keyGuard)]; kv != nil {
		guarded = kv.ModRevision
	}
	known, verdict, err := s.mirrored(c.ctx, guarded, check)
	if err != nil || known {
		return firstOf(err, verdict)
	}
	all, _, at, err := s.load(c.ctx, c.rev) // the mirror lags: read everything, as it was when the guard was read
	if err != nil {
		return fmt.Errorf("reading servers: %w", err)
	}
	if at != guarded {
		return errAgain
	}
	return check(all)
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// BeginLife is Move to Wiping and the beginning of the next life, whose number it returns.
func (s *Store) BeginLife(ctx context.Context, name string, epoch uint64, from inventory.State, cause string, now time.Time, check store.Check) (uint64, error) {
	var next uint64
	err := s.move(ctx, name, epoch, from, inventory.Wiping, cause, now, check, func(c *change, r *record) error {
		if r.Tainted && now.Before(r.HeldUntil) {
			return fmt.Errorf("life %d of server %q, until %s: %w", epoch, name, r.HeldUntil.Format(time.RFC3339), store.ErrHeld)
		}
		next = max(r.Epoch+1, r.Floor)
		*r = record{Server: store.Server{Name: r.Name, State: r.State, Epoch: next, Since: r.Since, Cause: r.Cause}, Floor: r.Floor}
		c.remove(s.key(keyDrain, name))
		c.remove(s.key(keyHealth, name))
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("beginning a life: %w", err)
	}
	return next, nil
}

// Joined records what a server said when it joined and moves it from Booting to Attesting.
func (s *Store) Joined(ctx context.Context, name string, epoch uint64, j store.Joined) error {
	return s.move(ctx, name, epoch, inventory.Booting, inventory.Attesting, "joined", j.At, nil, func(_ *change, r *record) error {
		r.BootID, r.HostKey, r.TunnelKey, r.TLSKey, r.Evidence = j.BootID, j.HostKey, j.TunnelKey, j.TLSKey, j.Evidence
		r.JoinedAt, r.Deadline = j.At.UTC(), j.Deadline.UTC()
		return nil
	})
}

// Taint takes a serving server out for an engineer, if check agrees.
func (s *Store) Taint(ctx context.Context, name string, epoch uint64, reason string, held, now time.Time, check store.Check) error {
	return s.move(ctx, name, epoch, inventory.Serving, inventory.Draining, "for an engineer: "+reason, now, check, func(_ *change, r *record) error {
		r.Tainted, r.HeldUntil, r.TaintReason = true, held.UTC(), reason
		return nil
	})
}

// Hold brings forward when a tainted life may be rebuilt. It never puts it off.
func (s *Store) Hold(ctx context.Context, name string, epoch uint64, until time.Time) error {
	return s.set(ctx, name, epoch, func(r *record) error {
		if !r.Tainted {
			return stale(*r, epoch, "")
		}
		if until.Before(r.HeldUntil) {
			r.HeldUntil = until.UTC()
		}
		return nil
	})
}

// Events returns the transitions after the one with this ID, oldest first; 0 for all. It returns a bounded number.
func (s *Store) Events(ctx context.Context, after int64) ([]store.Event, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	r, err := s.client.Get(ctx, s.eventKey(max(after, 0)+1), clientv3.WithRange(clientv3.GetPrefixRangeEnd(s.key(keyEvent))), clientv3.WithLimit(maxEvents))
	if err != nil {
		return nil, fmt.Errorf("reading events: %w", unreachable(err))
	}
	return values[store.Event](r.Kvs, func(e *store.Event) { utc(&e.At) })
}

// values decodes keys' values.
func values[T any](kvs []*mvccpb.KeyValue, mend func(*T)) ([]T, error) {
	var all []T
	for _, kv := range kvs {
		var v T
		if err := decode(kv, &v); err != nil {
			return nil, err
		}
		mend(&v)
		all = append(all, v)
	}
	return all, nil
}

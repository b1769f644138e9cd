package rotate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"mayfly/fleetctl/plan"
	"mayfly/internal/hint"
	"mayfly/inventory"
	"mayfly/inventory/store"
	"mayfly/policies"
	"mayfly/policies/bundle"
	"mayfly/rebuild/join"
)

// Statements signs that a server is drained.
type Statements interface {
	Drained(ctx context.Context, server string, epoch uint64, expires time.Time) (data, signature []byte, err error)
}

// minHold is the least that a drain for an engineer is good for.
const minHold = time.Minute

// Drainer takes one server out for an engineer. It rebuilds nothing: the next rotate does, once the statement is over.
type Drainer struct {
	Store  store.Store
	Bundle *bundle.Bundle
	Signer Statements
	Talk   io.Writer
	Poll   time.Duration // how often the store is read
}

// Drained is a server that takes no traffic any more, with the statement that says so.
type Drained struct {
	Server    string    `json:"server"`
	Epoch     uint64    `json:"epoch"`
	Expires   time.Time `json:"expires"`
	Forced    bool      `json:"forced"` // some users were cut off when the drain's bound passed
	Statement []byte    `json:"-"`
	Signature []byte    `json:"-"`
}

// Drain drains a serving server for an engineer, waits until no user is left, and has that signed, for span at most. From its first
// write on the server is tainted: it comes back by a rebuild only. Asked again after it was interrupted, it goes on.
func (d *Drainer) Drain(ctx context.Context, name, reason string, span time.Duration) (Drained, error) {
	if d.Poll == 0 {
		d.Poll = defaultPoll
	}
	s, err := d.begin(ctx, name, reason, span, time.Now())
	if err != nil {
		return Drained{}, err
	}
	rules := Rules(d.Bundle.Inventory, d.Bundle.Policy.Rotation, nil)
	if err := d.Store.OrderDrain(context.WithoutCancel(ctx), name, s.Epoch, rules.DrainLimit); err != nil {
		return Drained{}, err
	}
	if s, err = d.wait(ctx, s, s.Since.Add(rules.DrainLimit+drainGrace)); err != nil {
		return Drained{}, err
	}
	if !s.Drained || s.Revoked {
		why := "its drain's bound passed without its word that no user is left"
		if s.Revoked {
			why = "its life is revoked"
		}
		// Nobody was let onto it; there is nothing to wait for.
		err := fmt.Errorf("draining %s: %s", name, why)
		return Drained{}, errors.Join(hint.New(err, "it stays out; `fleetctl rotate` rebuilds it"), d.Store.Hold(ctx, name, s.Epoch, time.Now()))
	}
	now := time.Now()
	expires := now.Add(span + policies.DrainedMargin) // it counts until that much before
	if s.HeldUntil.Before(expires) {
		expires = s.HeldUntil
	}
	expires = expires.UTC().Truncate(time.Second)
	// Written down before the statement is: nobody rebuilds the server while somebody may believe it.
	if err := d.Store.Hold(ctx, name, s.Epoch, expires); err != nil {
		return Drained{}, err
	}
	data, sig, err := d.Signer.Drained(ctx, name, s.Epoch, expires)
	if err != nil {
		err = fmt.Errorf("having it signed that %s is drained: %w", name, err)
		if _, refused := join.IsRefusal(err); refused {
			err = errors.Join(hint.New(err, "it stays out; `fleetctl rotate` rebuilds it"), d.Store.Hold(ctx, name, s.Epoch, time.Now()))
		}
		return Drained{}, err
	}
	return Drained{Server: name, Epoch: s.Epoch, Expires: expires, Forced: s.DrainForced, Statement: data, Signature: sig}, nil
}

// begin taints the server, unless an earlier call has.
func (d *Drainer) begin(ctx context.Context, name, reason string, span time.Duration, now time.Time) (store.Server, error) {
	s, err := d.Store.Server(ctx, name)
	if err != nil {
		return s, err
	}
	if s.State == inventory.Draining && s.Tainted {
		if !now.Add(minHold + policies.DrainedMargin).Before(s.HeldUntil) {
			return s, &Refused{plan.Refusals{{Code: plan.DrainState, Detail: fmt.Sprintf("%s was drained for an engineer until %s: it is rebuilt next", name, s.HeldUntil.Format(time.RFC3339))}}}
		}
		fmt.Fprintf(d.Talk, "fleetctl: drain: %s: goes on, draining in life %d\n", name, s.Epoch)
		return s, nil
	}
	held := d.held(s, span, now)
	err = d.Store.Taint(ctx, name, s.Epoch, reason, held, now, func(servers []store.Server) error { return d.refuse(servers, s, span, now) })
	if err != nil {
		return s, err
	}
	fmt.Fprintf(d.Talk, "fleetctl: drain: %s: draining, life %d is tainted and ends with a rebuild (%s)\n", name, s.Epoch, reason)
	return d.Store.Server(context.WithoutCancel(ctx), name) // an interruption is told by wait, with its mend
}

// held is how long the server is kept from being rebuilt at most: not beyond the end of its life.
func (d *Drainer) held(s store.Server, span time.Duration, now time.Time) time.Time {
	rules := Rules(d.Bundle.Inventory, d.Bundle.Policy.Rotation, nil)
	held := now.Add(rules.DrainLimit + drainGrace + span + policies.DrainedMargin)
	if deadline := Deadline(s, rules.MaxAge); !deadline.IsZero() && deadline.Before(held) {
		return deadline
	}
	return held
}

// refuse says why the server may not be taken out, if it may not.
func (d *Drainer) refuse(servers []store.Server, s store.Server, span time.Duration, now time.Time) error {
	rules := Rules(d.Bundle.Inventory, d.Bundle.Policy.Rotation, nil)
	snapshot, health := Snapshot(d.Bundle, 0, servers)
	if refused := plan.Drain(snapshot, rules, health, s.Name, now); len(refused) > 0 {
		return &Refused{refused}
	}
	if held := d.held(s, span, now); held.Sub(now) < rules.DrainLimit+drainGrace+policies.DrainedMargin+min(minHold, span) {
		return &Refused{plan.Refusals{{Code: plan.DrainState, Detail: fmt.Sprintf("the life of %s ends at %s: nothing would be left of the drain", s.Name, held.Format(time.RFC3339))}}}
	}
	return nil
}

// Check says whether Drain would refuse at once, and changes nothing.
func (d *Drainer) Check(ctx context.Context, name string, span time.Duration, now time.Time) error {
	servers, err := d.Store.Servers(ctx)
	if err != nil {
		return err
	}
	for _, s := range servers {
		if s.Name == name && !(s.State == inventory.Draining && s.Tainted) {
			return d.refuse(servers, s, span, now)
		}
	}
	return nil
}

// wait reads the store until the server says that it is drained, or the end comes.
func (d *Drainer) wait(ctx context.Context, s store.Server, end time.Time) (store.Server, error) {
	tick := time.NewTicker(d.Poll)
	defer tick.Stop()
	for {
		now, err := d.Store.Server(context.WithoutCancel(ctx), s.Name)
		if err != nil {
			return s, err
		}
		if now.Epoch != s.Epoch || now.State != inventory.Draining {
			return s, fmt.Errorf("%s is %s in life %d: another process moved it: %w", s.Name, now.State, now.Epoch, store.ErrStale)
		}
		if now.Drained || now.Revoked || !time.Now().Before(end) {
			return now, nil
		}
		select {
		case <-ctx.Done():
			return s, hint.New(fmt.Errorf("%w: %s is draining", ErrInterrupted, s.Name), "the same command goes on; without it, `fleetctl rotate` rebuilds the server at %s", now.HeldUntil.Format(time.RFC3339))
		case <-tick.C:
		}
	}
}

// Package grant lets hosts go that update themselves: Fedora CoreOS and Flatcar, which ask by FleetLock (package fleetlock) and Omaha (package omaha).
// The planner that decides for servers decides for them (decide.go), and what it let go is in the store, shared by all controllers.
//
// A host that was let go holds a lease: a claim of the name "@host/NAME", which is no server's. It takes a place until it says that it is back, or until its time
// is over: from then on it is overdue, takes no place from anybody, and counts as capacity that is gone until it comes back or is forgotten. So a
// host that died blocks nobody, and no floor is given away to it.
//
// Who decides holds the claim "@hosts" while it reads who is out and writes down who goes, and makes sure afterwards that it held it all the while: two
// controllers never give one place away twice, wherever either of them is stopped.
//
// Read grant.go, lease.go, decide.go.
package grant

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"mayfly/fleetctl/plan"
	"mayfly/inventory/store"
)

// Implementation constants.
const (
	deskName = store.Shared + "hosts"
	deskTTL  = 30 * time.Second
)

// Reasons beside the planner's.
const (
	Busy    plan.Reason = "busy"    // another controller decides
	Already plan.Reason = "already" // it was let go before
)

// Store is what leases are kept in.
type Store interface {
	Claim(ctx context.Context, server, holder string, ttl time.Duration, now time.Time) (store.Claim, error)
	Renew(ctx context.Context, c store.Claim, ttl time.Duration, now time.Time) (store.Claim, error)
	Release(ctx context.Context, c store.Claim) error
	Claims(ctx context.Context, now time.Time) ([]store.Claim, error)
}

// Desk decides. All fields but Now are needed.
type Desk struct {
	Store  Store
	Holder string                                                   // this process, as claims name it
	Ground func(ctx context.Context, now time.Time) (Ground, error) // as it is now
	Now    func() time.Time                                         // time.Now when nil

	mu sync.Mutex // one decision at a time in this process
}

// Answer is what a host is told.
type Answer struct {
	Granted bool
	Reason  plan.Reason // stable
	Why     string
	Until   time.Time // its place is kept until then
}

func (d *Desk) now() time.Time {
	if d.Now == nil {
		return time.Now()
	}
	return d.Now()
}

// Ask is a host's question whether it may go now. Asked again while it is out, the answer is yes, and its time runs on: a lease is never given back to be taken
// again, for in between the host would count as being there.
func (d *Desk) Ask(ctx context.Context, host, protocol string) (Answer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	desk, err := d.Store.Claim(ctx, deskName, d.Holder, deskTTL, now)
	if errors.Is(err, store.ErrClaimed) {
		return Answer{Reason: Busy, Why: "another controller is deciding: ask again"}, nil
	}
	if err != nil {
		return Answer{}, err
	}
	a, err := d.decide(ctx, desk, host, protocol, now)
	return a, errors.Join(err, d.Store.Release(context.WithoutCancel(ctx), desk))
}

func (d *Desk) decide(ctx context.Context, desk store.Claim, host, protocol string, now time.Time) (Answer, error) {
	g, err := d.Ground(ctx, now)
	if err != nil {
		return Answer{}, err
	}
	all, err := d.leases(ctx, g, now)
	if err != nil {
		return Answer{}, err
	}
	var own *Lease
	var others []Lease
	for i, l := range all {
		if l.Host == host {
			own = &all[i]
		} else {
			others = append(others, l)
		}
	}
	a := Answer{Granted: true, Reason: Already, Why: "it was let go before", Until: now.Add(limit(g.Rules))}
	if own == nil || own.Overdue { // one that is overdue stays so, and counts as gone, until it is back
		step, err := decide(g, host, others, now)
		if err != nil {
			return Answer{}, err
		}
		if !step.Now {
			return Answer{Reason: step.Reason, Why: step.Why}, nil
		}
		a.Reason, a.Why = step.Reason, step.Why
	}
	if own != nil {
		if !own.Overdue {
			a.Until = own.Since.Add(limit(g.Rules))
		}
		if _, err := d.Store.Renew(ctx, own.claim, forget, now); err != nil {
			return Answer{}, err
		}
		return a, nil
	}
	ctx = context.WithoutCancel(ctx) // who asked may hang up; what is written is written whole
	c, err := d.Store.Claim(ctx, leaseName+host, Lease{Protocol: protocol, Since: now}.holder(), forget, now)
	if err != nil {
		return Answer{}, err
	}
	// What was decided holds only if nobody else decided meanwhile: this process may have been stopped in between.
	if _, err := d.Store.Renew(ctx, desk, deskTTL, d.now()); err != nil {
		err = errors.Join(err, d.Store.Release(ctx, c))
		return Answer{}, fmt.Errorf("letting %s go: %w", host, err)
	}
	return a, nil
}

// Back ends a host's lease: it has come back, or does not go after all. One that has none is no error.
func (d *Desk) Back(ctx context.Context, host string) (was bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	claims, err := d.Store.Claims(ctx, d.now())
	if err != nil {
		return false, err
	}
	for _, c := range claims {
		if c.Server == leaseName+host {
			return true, d.Store.Release(ctx, c)
		}
	}
	return false, nil
}

// Out are the hosts that were let go and have not come back.
func (d *Desk) Out(ctx context.Context) ([]Lease, error) {
	now := d.now()
	g, err := d.Ground(ctx, now)
	if err != nil {
		return nil, err
	}
	return d.leases(ctx, g, now)
}

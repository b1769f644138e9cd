package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"mayfly/fleetctl/authority"
	"mayfly/fleetctl/users"
	"mayfly/internal/audit"
	"mayfly/internal/command"
	"mayfly/inventory/store"
	"mayfly/policies"
	"mayfly/policies/bundle"
	"mayfly/policies/request"
)

// orders is where the verbs of a controller keep which requests were used, and the log of what was done by people's leave, and what was not.
func (d state) orders() string { return d.path("orders") }

// beforePolicy is what may be made ready before the first policy is in force, and so before anybody could be asked: no server boots without one.
var beforePolicy = []string{policies.ActionImageUse, policies.ActionSecret}

// authorise is what every verb that acts in its own process calls before its first effect: it opens the signed policy in force, decides the order by the
// request that was given (or is signed now), uses that up for good, and puts it on record; a refusal goes on record as well. When it returns an error,
// nothing may be done. What follows from the signed policy by itself does not call it.
//
// s is the store that other controllers may share, so that a request counts once for all of them; nil where there is none yet. flags have been parsed and checked (leaveFlags.check). The order says exactly what will be done: package policies/request has one constructor for each.
func (d state) authorise(ctx context.Context, c *command.Call, s store.Claims, flags *leaveFlags, o request.Order) (request.Decision, error) {
	now := time.Now()
	_, b, err := d.decides(ctx, now)
	if slices.Contains(beforePolicy, o.Action) && *flags.file == "" && *flags.key == "" && d.neverInForce(ctx, err) {
		fmt.Fprintln(c.Stderr, "fleetctl: note: no policy was ever in force here: nobody had to sign for this")
		return request.Decision{Allowed: true}, nil
	}
	if err != nil {
		return request.Decision{}, err
	}
	signed, err := flags.take(c, b, o, now)
	if err != nil {
		return request.Decision{}, err
	}
	if err := d.actAs(c, users.Serve); err != nil {
		return request.Decision{}, err
	}
	decision, err := authority.Act(ctx, d.orders(), audit.LogName("mayfly", b.Fleet, "orders"), s, b, o, signed, time.Now())
	if err != nil {
		return request.Decision{}, mendRequest(err)
	}
	if decision.Request == nil {
		warnWithout(c)
	}
	return decision, nil
}

// neverInForce reports whether the bundle could not be opened because there is none yet, or none that is signed, and none was ever acted under.
func (d state) neverInForce(ctx context.Context, err error) bool {
	refused, unsigned := errors.AsType[*bundle.Refusal](err)
	if !errors.Is(err, fs.ErrNotExist) && !(unsigned && refused.Reason == bundle.Unsigned) {
		return false
	}
	seen, err := d.policySeen(ctx)
	return err == nil && seen == 0
}

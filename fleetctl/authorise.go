package main

import (
	"context"
	"time"

	"mayfly/fleetctl/authority"
	"mayfly/internal/audit"
	"mayfly/internal/command"
	"mayfly/policies/request"
)

// orders is where the verbs of a controller keep which requests were used, and the log of what was done by people's leave, and what was not.
func (d state) orders() string { return d.path("orders") }

// authorise is what every verb that acts in its own process calls before its first effect: it opens the signed policy in force, decides the order by the
// request that was given (or is signed now), uses that up for good, and puts it on record; a refusal goes on record as well. When it returns an error,
// nothing may be done. What follows from the signed policy by itself does not call it.
//
// flags have been parsed and checked (leaveFlags.check). The order says exactly what will be done: package policies/request has one constructor for each.
func (d state) authorise(ctx context.Context, c *command.Call, flags *leaveFlags, o request.Order) (request.Decision, error) {
	now := time.Now()
	_, b, err := d.decides(ctx, now)
	if err != nil {
		return request.Decision{}, err
	}
	s, err := flags.take(c, b, o, now)
	if err != nil {
		return request.Decision{}, err
	}
	decision, err := authority.Act(d.orders(), audit.LogName("mayfly", b.Fleet, "orders"), b, o, s, time.Now())
	if err != nil {
		return request.Decision{}, mendRequest(err)
	}
	if decision.Request == nil {
		warnWithout(c)
	}
	return decision, nil
}

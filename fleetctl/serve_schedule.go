package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"mayfly/fleetctl/rotate"
	"mayfly/internal/command"
	"mayfly/inventory/store"
)

// scheduler is the schedule of the policy in force, in this process. What it begins is what `fleetctl rotate` begins without flags: it follows from
// the signed policy, so nobody has to sign for it.
func (d state) scheduler(c *command.Call, s store.Store, p *policy, log *slog.Logger) *scheduler {
	return &scheduler{
		store: s,
		every: func() time.Duration { return p.current().Policy.Rotation.Schedule.Every.Std() },
		run:   func(ctx context.Context) (rotate.Result, error) { return d.scheduled(ctx, c) },
		wall:  time.Now,
		log:   log,
	}
}

// scheduled carries one scheduled rotation to its end, from files that are read and verified anew.
func (d state) scheduled(ctx context.Context, c *command.Call) (rotate.Result, error) {
	r, rules, closeStore, err := d.runner(ctx, c)
	if err != nil {
		return rotate.Result{}, err
	}
	defer closeStore()
	if err := os.MkdirAll(d.machines(), 0o700); err != nil {
		return rotate.Result{}, fmt.Errorf("making the directory of machines: %w", err)
	}
	return d.rotate(ctx, r, rules, func() error { return nil }) // what is due follows from the signed policy: nobody is asked
}

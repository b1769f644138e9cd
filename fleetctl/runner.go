package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"time"

	"mayfly/fleetctl/plan"
	"mayfly/fleetctl/rotate"
	"mayfly/fleetctl/signer"
	"mayfly/internal/command"
	"mayfly/internal/pki"
)

// runner loads everything that plan and rotate act on, each checked: trust, signed policy, release in use, store.
func (d state) runner(ctx context.Context, c *command.Call) (*rotate.Runner, plan.Rules, func(), error) {
	fail := func(err error) (*rotate.Runner, plan.Rules, func(), error) { return nil, plan.Rules{}, nil, err }
	now := time.Now()
	t, trustBytes, err := d.trust()
	if err != nil {
		return fail(err)
	}
	b, err := d.bundle(t, now)
	if err != nil {
		return fail(err)
	}
	rel, err := d.release(t, b.Policy.Image.MinVersion, now)
	if err != nil {
		return fail(err)
	}
	ca, err := read(d.caFile(), "`fleetctl init` makes it")
	if err != nil {
		return fail(err)
	}
	s, err := d.openStore(ctx)
	if err != nil {
		return fail(err)
	}
	closeStore := func() {
		if err := s.Close(); err != nil {
			fmt.Fprintf(c.Stderr, "fleetctl: closing the store: %v\n", err)
		}
	}
	log := slog.New(slog.NewTextHandler(c.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	return &rotate.Runner{
		Store:    s,
		Bundle:   b,
		Release:  rel,
		Trust:    trustBytes,
		CA:       ca,
		Machines: rotate.PowerDir{Dir: d.machines(), Log: log},
		Tickets:  signer.Dial(string(d)),
		Prober:   rotate.TLSProbe{Config: func(name string) *tls.Config { return pki.VerifyName(ca, name) }, FQDN: b.Inventory.FQDN},
		Talk:     c.Stderr,
	}, rotate.Rules(b.Policy.Rotation, &rel.Statement), closeStore, nil
}

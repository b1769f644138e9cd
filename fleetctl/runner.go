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
	"mayfly/policies/bundle"
	"mayfly/policies/trust"
)

// grounds are what a plan rests on beside the store, each checked: trust, signed policy, release in use.
type grounds struct {
	trust   []byte // trust.json
	signers *trust.Trust
	bundle  *bundle.Bundle
	release rotate.Release
}

// grounds loads them, and says where they do not agree.
func (d state) grounds(ctx context.Context, c *command.Call, now time.Time) (g grounds, err error) {
	t, data, err := d.trust()
	if err != nil {
		return g, err
	}
	g.trust, g.signers = data, t
	seen, err := d.policySeen(ctx)
	if err != nil {
		return g, err
	}
	if g.bundle, err = d.bundle(t, seen, now); err != nil {
		return g, err
	}
	if err := needsController(g.bundle.Inventory); err != nil {
		return g, err
	}
	if g.release, err = d.release(t, g.bundle.Policy.Image.MinVersion, now); err != nil {
		return g, err
	}
	if short := rotate.ShortLife(g.bundle.Policy.Rotation, g.release.Statement); short != "" {
		fmt.Fprintf(c.Stderr, "fleetctl: note: %s\n", short)
	}
	return g, nil
}

func (g grounds) rules() plan.Rules {
	return rotate.Rules(g.bundle.Inventory, g.bundle.Policy.Rotation, &g.release.Statement)
}

// runner loads everything that rotate acts on: its grounds, the CA's certificate and the store.
func (d state) runner(ctx context.Context, c *command.Call) (*rotate.Runner, plan.Rules, func(), error) {
	fail := func(err error) (*rotate.Runner, plan.Rules, func(), error) { return nil, plan.Rules{}, nil, err }
	g, err := d.grounds(ctx, c, time.Now())
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
	if err := takeOver(ctx, s, g.release, time.Now()); err != nil {
		closeStore()
		return fail(err)
	}
	log := slog.New(slog.NewTextHandler(c.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	keys := signer.Dial(string(d))
	return &rotate.Runner{
		Store:   s,
		Bundle:  g.bundle,
		Release: g.release,
		Releases: func(v uint64) (rotate.Release, error) {
			return d.goBack(g.signers, v, g.bundle.Policy.Image.MinVersion, time.Now())
		},
		Trust:    g.trust,
		CA:       ca,
		Machines: rotate.Power{Place: d.powerPlace(g.bundle.Inventory, rotate.Restarts{Store: s, Signer: signer.Dial(string(d))}, log)},
		Tickets:  keys,
		Ledger:   keys,
		Prober:   rotate.TLSProbe{Config: func(name string) *tls.Config { return pki.VerifyName(ca, name) }, FQDN: g.bundle.Inventory.FQDN},
		Zones:    zones(g.bundle.Policy.Rotation),
		Here:     here(g.bundle.Inventory),
		Talk:     c.Stderr,
	}, g.rules(), closeStore, nil
}

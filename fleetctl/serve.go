package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"mayfly/fleetctl/signer"
	"mayfly/fleetctl/users"
	"mayfly/internal/account"
	"mayfly/internal/command"
	"mayfly/inventory/store"
	"mayfly/policies/bundle"
	"mayfly/policies/trust"
	"mayfly/rebuild/boot"
)

var serveVerb = command.Verb{
	Name:    "serve",
	Args:    "--dir DIR",
	Summary: "run the process that servers boot from, join and report to",
	Help: `Serves releases (HTTP, everything in them is checked by hash and signature) and join, renewal and the servers' streams (TLS), on
the controller's address and ports of the signed inventory; forwards drain orders and newer signed policies; and publishes the
signed list of servers (DIR/public/list.json). It serves the public ledger, and takes its checkpoints to the witnesses in fleet.toml. ` + "`fleetctl signer`" + ` has to run.

It says "fleetctl: serve: ready" on stderr when it listens. A newer bundle is taken over when it is signed; until then, and if
it is refused, the old one stays in force.

Example:

  fleetctl serve --dir lab`,
	Run: runServe,
}

func runServe(ctx context.Context, c *command.Call) error {
	fs := c.Flags()
	dir := dirFlag(fs)
	if err := c.Parse(fs); err != nil {
		return err
	}
	if err := noArguments(fs); err != nil {
		return err
	}
	if _, err := users.Start(*dir, users.Serve); err != nil {
		return err
	}
	if err := account.Undumpable(); err != nil {
		return err
	}
	d, log := state(*dir), logger(c.Stderr)
	t, _, err := d.trust()
	if err != nil {
		return err
	}
	p, err := openPolicy(ctx, d, t, log)
	if err != nil {
		return err
	}
	s, err := d.openStore(ctx)
	if err != nil {
		return err
	}
	p.actUnder = func(b *bundle.Bundle) error { return actUnder(ctx, s, b) }
	if err := p.actUnder(p.bundle); err != nil {
		return errors.Join(err, s.Close())
	}
	err = serve(ctx, c, d, s, t, p, log)
	return errors.Join(err, s.Close())
}

func serve(ctx context.Context, c *command.Call, d state, s store.Store, t *trust.Trust, p *policy, log *slog.Logger) error {
	b := p.current()
	ca, err := read(d.caFile(), "`fleetctl init` makes it")
	if err != nil {
		return err
	}
	if err := s.Sync(ctx, b.Inventory, time.Now()); err != nil {
		return err
	}
	if err := d.ledgerNotOlder(ctx, t, b.Inventory.Witnesses); err != nil {
		return err
	}
	keys := signer.Dial(string(d))
	look, err := d.lookout(s, p, log)
	if err != nil {
		return err
	}
	ready := make(chan struct{})
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		err := boot.Serve(ctx, boot.Config{Fleet: b.Inventory, Trust: t, CA: ca, Public: d.public(), Store: s, Signer: keys, Bundle: p.bytes, Steps: p.lastSteps, Log: log, Audit: d.auditLogs(), Offers: d.offers(),
			Ready: func() { close(ready); fmt.Fprintln(c.Stderr, "fleetctl: serve: ready") }})
		if ctx.Err() != nil {
			return nil // asked to stop
		}
		return needsSigner(err)
	})
	g.Go(func() error { p.watch(ctx); return nil })
	g.Go(func() error { return d.offerLedger(ctx, t, b.Inventory.Witnesses, log) })
	g.Go(func() error {
		publish(ctx, d, s, keys, p.current, log)
		return nil
	})
	g.Go(func() error { return look.publish(ctx) })
	g.Go(func() error { look.loop(ctx); return nil })
	g.Go(func() error { return d.serveHosts(ctx, p, look.desk, look.metrics, log) })
	g.Go(func() error { return d.servePage(ctx, s, p, log) })
	g.Go(func() error {
		select {
		case <-ready: // servers that boot have to find it
			schedule := d.scheduler(c, s, p, log)
			schedule.ended = look.scheduled
			schedule.loop(ctx)
		case <-ctx.Done():
		}
		return nil
	})
	return g.Wait()
}

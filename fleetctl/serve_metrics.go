package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"time"

	"mayfly/fleetctl/grant"
	"mayfly/fleetctl/metrics"
	"mayfly/inventory/store"
)

// lookout is what looks at the fleet for metrics and alarms, with the desk that lets hosts go.
func (d state) lookout(s store.Store, p *policy, log *slog.Logger) (*lookout, error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("naming this controller: %w", err)
	}
	w := &lookout{d: d, store: s, policy: p, log: log, metrics: metrics.New(version())}
	w.desk = &grant.Desk{Store: s, Holder: fmt.Sprintf("%s/%d/%s", host, os.Getpid(), rand.Text()), Ground: func(ctx context.Context, now time.Time) (grant.Ground, error) {
		g, _, _, err := w.ground(ctx, now)
		return g, err
	}}
	return w, nil
}

// publish serves the numbers where the signed inventory says, until ctx ends. Without controller.metrics nowhere.
func (w *lookout) publish(ctx context.Context) error {
	k := w.policy.current().Inventory.Controller
	if k.Metrics == "" {
		return nil
	}
	l, err := metrics.Listen(ctx, k.Metrics)
	if err != nil {
		return err
	}
	return w.metrics.Serve(ctx, l, k.MetricsAllow, w.log)
}

// version is the program's, as its build knows it.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

package main

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"time"

	"mayfly/fleetctl/plan"
	"mayfly/fleetctl/rotate"
	"mayfly/fleetctl/signer"
	"mayfly/internal/canonical"
	"mayfly/internal/durable"
	"mayfly/inventory"
	"mayfly/inventory/store"
	"mayfly/policies/bundle"
	"mayfly/tunnel/checkin"
)

// How often the list of servers is looked at, signed again without a change, and how long it is valid.
const (
	listInterval = 500 * time.Millisecond
	listRenewal  = 30 * time.Second
	listLife     = 2 * time.Minute
)

// publish keeps DIR/public/list.json true until ctx ends: signed again with every change, and before it gets old.
func publish(ctx context.Context, d state, s store.Store, keys *signer.Client, current func() *bundle.Bundle, log *slog.Logger) {
	tick := time.NewTicker(listInterval)
	defer tick.Stop()
	var last []checkin.Server
	var issued time.Time
	said := ""
	for {
		now := time.Now()
		servers, err := s.Servers(ctx)
		if err == nil {
			list := takers(current(), servers, now)
			if issued.IsZero() || now.Sub(issued) >= listRenewal || !reflect.DeepEqual(list, last) {
				if err = publishOnce(ctx, d, keys, current().Fleet, list, now); err == nil {
					last, issued = list, now
				}
			}
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil && said != err.Error() {
			log.Error("publishing the list of servers", "error", err)
		}
		said = ""
		if err != nil {
			said = err.Error()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func publishOnce(ctx context.Context, d state, keys *signer.Client, fleet string, servers []checkin.Server, now time.Time) error {
	now = now.UTC().Truncate(time.Second)
	signed, err := keys.List(ctx, checkin.List{Kind: checkin.Kind, Fleet: fleet, Issued: now, Expires: now.Add(listLife), Servers: servers})
	if err != nil {
		return fmt.Errorf("having the list signed: %w", err)
	}
	data, err := canonical.Marshal(signed)
	if err != nil {
		return fmt.Errorf("encoding the signed list: %w", err)
	}
	return durable.WriteFile(d.listFile(), data, 0o644)
}

// takers are the servers that have users: those that serve, and those that their users are leaving. A revoked life has none, and neither has one
// that has drained for an engineer: the signer signs no list that names it.
func takers(b *bundle.Bundle, servers []store.Server, now time.Time) []checkin.Server {
	known := map[string]store.Server{}
	for _, s := range servers {
		known[s.Name] = s
	}
	list := []checkin.Server{}
	for _, x := range b.Inventory.Rebuilt() {
		if x.Role != inventory.RoleVPN || x.Internal() {
			continue
		}
		k := known[x.Name]
		deadline := rotate.Deadline(k, time.Duration(b.Policy.Rotation.MaxAge))
		if k.Revoked || k.Tainted && k.Drained || plan.Passed(deadline, now) {
			continue
		}
		if k.State == inventory.Serving || k.State == inventory.Draining {
			list = append(list, checkin.Server{Name: x.Name, Region: b.Inventory.RegionOf(x.Name), Address: x.Address.Addr(),
				Register: inventory.PortRegister, Draining: k.State == inventory.Draining})
		}
	}
	return list
}

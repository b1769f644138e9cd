package grant

import (
	"context"
	"strings"
	"time"

	"mayfly/fleetctl/plan"
	"mayfly/inventory/store"
)

// Implementation constants of leases.
const (
	leaseName = store.Shared + "host/"
	forget    = 7 * 24 * time.Hour // a host that has not come back by then is no longer counted as out
	leastTime = 30 * time.Minute   // to fetch, write and boot an update
)

// Lease is a host that was let go.
type Lease struct {
	Host     string
	Protocol string
	Since    time.Time
	Overdue  bool // it should be back

	claim store.Claim
}

// limit is how long a host may be out: as long as a server may, and half an hour at least.
func limit(r plan.Rules) time.Duration { return max(r.Turn(), leastTime) }

// holder is what the claim says: by which protocol, since when.
func (l Lease) holder() string { return l.Protocol + " " + l.Since.UTC().Format(time.RFC3339) }

// leases reads those of the fleet's hosts. A clock that went back makes nobody late, and none is early for longer than the lease lasts.
func (d *Desk) leases(ctx context.Context, g Ground, now time.Time) ([]Lease, error) {
	claims, err := d.Store.Claims(ctx, now)
	if err != nil {
		return nil, err
	}
	known := map[string]bool{}
	for _, h := range g.Fleet.Asking() {
		known[h.Name] = true
	}
	var all []Lease
	for _, c := range claims {
		host, ok := strings.CutPrefix(c.Server, leaseName)
		if !ok || !known[host] {
			continue
		}
		l := Lease{Host: host, claim: c}
		protocol, since, _ := strings.Cut(c.Holder, " ")
		at, err := time.Parse(time.RFC3339, since)
		l.Protocol, l.Since = protocol, at
		l.Overdue = err != nil || now.Sub(at) >= limit(g.Rules) // one that cannot be read blocks nobody either
		all = append(all, l)
	}
	return all, nil
}

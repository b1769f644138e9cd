package rotate

import (
	"encoding/json"
	"fmt"
	"time"

	"mayfly/fleetctl/plan"
	"mayfly/inventory"
	"mayfly/inventory/store"
	"mayfly/policies"
	"mayfly/policies/bundle"
	"mayfly/rebuild/join"
	"mayfly/rebuild/release"
)

// Release is the release that a rebuilt server boots, verified.
type Release struct {
	Statement release.Statement
	Digest    [32]byte // SHA-256 of release.json
	Path      string   // below the controller's boot port: "/releases/7/"
	Kernel    string   // file, which may change until it is booted: the driver compares it with Statement again
	Stub      string   // likewise
	Root      string   // likewise
	Data      []byte   // release.json
	UKI       string   // likewise, if the release has one
}

// Rules are the policy's rules; a release that allows less age wins.
func Rules(p policies.Rotation, release *release.Statement) plan.Rules {
	r := plan.Rules{
		MaxAge:      time.Duration(p.MaxAge),
		MaxParallel: p.MaxParallel,
		DrainLimit:  time.Duration(p.DrainLimit),
		BootLimit:   time.Duration(p.BootLimit),
		Bake:        time.Duration(p.Bake),
		Retries:     p.Retries,
	}
	if release != nil {
		if age := time.Duration(release.MaxAge) * time.Second; age > 0 {
			r.MaxAge = min(r.MaxAge, age)
		}
	}
	return r
}

// ShortLife says that a release ends lives sooner than the policy, or nothing.
func ShortLife(p policies.Rotation, s release.Statement) string {
	age := time.Duration(s.MaxAge) * time.Second
	if age >= time.Duration(p.MaxAge) {
		return ""
	}
	return fmt.Sprintf("release %d ends every life after %s, sooner than the policy's max_age of %s", s.Version, policies.Duration(age), p.MaxAge)
}

// Snapshot is the fleet of the signed bundle with the states of the store, in the fleet's order.
func Snapshot(b *bundle.Bundle, release uint64, servers []store.Server) (plan.Snapshot, plan.Health) {
	fleet := b.Inventory
	s := plan.Snapshot{Fleet: fleet.Name, Policy: b.Version, Release: release}
	for _, g := range fleet.Regions {
		s.Regions = append(s.Regions, plan.Region{Name: g.Name, Floor: g.Floor.Of(fleet.Capacity(g.Name))})
	}
	known := map[string]store.Server{}
	for _, x := range servers {
		known[x.Name] = x
	}
	h := plan.Health{}
	for _, x := range fleet.Rebuilt() {
		k, ok := known[x.Name]
		if !ok {
			k = store.Server{Name: x.Name, State: inventory.New}
		}
		s.Servers = append(s.Servers, plan.Server{Name: x.Name, Region: fleet.RegionOf(x.Name), Capacity: x.Capacity, Bastion: x.Role == inventory.RoleBastion,
			State: k.State, Epoch: k.Epoch, Deadline: Deadline(k, time.Duration(b.Policy.Rotation.MaxAge)), Revoked: k.Revoked,
			Tainted: k.Tainted, HeldUntil: k.HeldUntil})
		if ready(k) {
			h[x.Name] = k.HealthAt
		}
	}
	return s, h
}

// Deadline is when a server ends itself: what it was told, or what the policy says now where that is sooner. Where approvers have let a life
// go on, their word stands.
func Deadline(s store.Server, maxAge time.Duration) time.Time {
	if s.BootedAt.IsZero() || s.Extended {
		return s.Deadline
	}
	if d := s.BootedAt.Add(maxAge); s.Deadline.IsZero() || d.Before(s.Deadline) {
		return d
	}
	return s.Deadline
}

// ready reports whether a server's last word, in this life, was that all its services answer.
func ready(s store.Server) bool {
	h, ok := health(s)
	return ok && h.Ready
}

// health returns the last report of this life.
func health(s store.Server) (join.Health, bool) {
	var h join.Health
	if len(s.Health) == 0 || s.HealthAt.IsZero() || json.Unmarshal(s.Health, &h) != nil {
		return join.Health{}, false
	}
	return h, s.BootID != "" && h.BootID == s.BootID
}

// Whole is a fleet in which every server serves: what the rules have to hold for.
func Whole(f inventory.Fleet) plan.Snapshot {
	s := plan.Snapshot{Fleet: f.Name}
	for _, g := range f.Regions {
		s.Regions = append(s.Regions, plan.Region{Name: g.Name, Floor: g.Floor.Of(f.Capacity(g.Name))})
	}
	for _, x := range f.Rebuilt() {
		s.Servers = append(s.Servers, plan.Server{Name: x.Name, Region: f.RegionOf(x.Name), Capacity: x.Capacity, Bastion: x.Role == inventory.RoleBastion, State: inventory.Serving, Epoch: 1})
	}
	return s
}

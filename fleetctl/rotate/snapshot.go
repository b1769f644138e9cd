package rotate

import (
	"encoding/json"
	"fmt"
	"strconv"
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

// ShortLife says that a release ends lives sooner than the policy, or nothing.
func ShortLife(p policies.Rotation, s release.Statement) string {
	age := time.Duration(s.MaxAge) * time.Second
	if age >= time.Duration(p.MaxAge) {
		return ""
	}
	return fmt.Sprintf("release %d ends every life after %s, sooner than the policy's max_age of %s", s.Version, policies.Duration(age), p.MaxAge)
}

// Snapshot is the fleet of the signed bundle with the states of the store, in the fleet's order. What the store knows of releases and of what people
// asked for is not in it: Known.Into.
func Snapshot(b *bundle.Bundle, release uint64, servers []store.Server) (plan.Snapshot, plan.Health) {
	s := Whole(b.Inventory, b.Policy.Rotation)
	s.Policy, s.Release = b.Version, release
	known := make(map[string]*store.Server, len(servers))
	for i := range servers {
		known[servers[i].Name] = &servers[i]
	}
	h := make(plan.Health, len(s.Servers))
	for i := range s.Servers {
		x := &s.Servers[i]
		x.State, x.Epoch = inventory.New, 0
		k, ok := known[x.Name]
		if !ok {
			continue
		}
		x.State, x.Epoch, x.Revoked, x.Tainted, x.HeldUntil = k.State, k.Epoch, k.Revoked, k.Tainted, k.HeldUntil
		x.Deadline = Deadline(*k, time.Duration(b.Policy.Rotation.MaxAge))
		x.Release = versionOf(k.Release)
		if ready(*k) {
			h[x.Name] = k.HealthAt
		}
	}
	return s, h
}

// versionOf is the release that a life was given, as the boot put it down; 0 for none, or one that is named by its hash.
func versionOf(release string) uint64 {
	v, err := strconv.ParseUint(release, 10, 64)
	if err != nil {
		return 0
	}
	return v
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

// heard reports whether a server said within plan.FreshFor that all its services answer.
func heard(s store.Server, now time.Time) bool {
	return ready(s) && now.Sub(s.HealthAt).Abs() <= plan.FreshFor
}

// health returns the last report of this life.
func health(s store.Server) (join.Health, bool) {
	var h join.Health
	if len(s.Health) == 0 || s.HealthAt.IsZero() || json.Unmarshal(s.Health, &h) != nil {
		return join.Health{}, false
	}
	return h, s.BootID != "" && h.BootID == s.BootID
}

package plan

import (
	"fmt"
	"slices"
	"time"

	"mayfly/inventory"
)

// Codes of refusals to drain one server.
const (
	DrainUnknown = "server_unknown"
	DrainState   = "not_serving"
	DrainFloor   = "floor"
)

// Drain refuses to take one server out for an engineer: it has to serve, and the rest of its region has to keep the floor without
// it and without anything that is on its way back. How long it will be out is up to a person, so nothing is counted on.
func Drain(s Snapshot, r Rules, h Health, name string, now time.Time) Refusals {
	i := slices.IndexFunc(s.Servers, func(x Server) bool { return x.Name == name })
	if i < 0 {
		return Refusals{{Code: DrainUnknown, Region: "", Detail: fmt.Sprintf("no server %q that is rebuilt", name)}}
	}
	x := s.Servers[i]
	if x.State != inventory.Serving || x.over(now) {
		return Refusals{{Code: DrainState, Region: x.Region, Detail: fmt.Sprintf("%s is %s in life %d: only a server that serves is drained", name, x.State, x.Epoch)}}
	}
	if x.Internal {
		return nil // it has no users, and counts for no floor
	}
	floors := []RoleFloor{{Region: x.Region}}
	for _, g := range s.Regions {
		if g.Name == x.Region {
			floors[0].Mbps = g.Floor
		}
	}
	for _, f := range r.Floors {
		switch {
		case f.Region != "" && f.Region != x.Region:
		case f.Role == "":
			floors[0].Mbps = max(floors[0].Mbps, f.Mbps)
		case f.Role == x.Role:
			floors = append(floors, f)
		}
	}
	for _, f := range floors {
		if refused := keeps(s, h, x, f, now); len(refused) > 0 {
			return refused
		}
	}
	return nil
}

// keeps refuses to take a server from under a floor of its region, or of its role there.
func keeps(s Snapshot, h Health, x Server, floor RoleFloor, now time.Time) Refusals {
	serving, loses := 0, 0
	var out []string
	for _, other := range s.Servers {
		switch {
		case other.Region != x.Region || other.Internal || floor.Role != "" && other.Role != floor.Role:
		case other.Serves(h, now):
			serving += other.Capacity
		case other.Name != x.Name:
			out = append(out, other.Name)
		}
	}
	if x.Serves(h, now) {
		loses = x.Capacity
	}
	ofRole := ""
	if floor.Role != "" {
		ofRole = ", role " + floor.Role
	}
	if left := serving - loses; left < floor.Mbps {
		return Refusals{{Code: DrainFloor, Region: x.Region, Detail: fmt.Sprintf("region %s%s: serving %d - %d (%s) = %d, under the floor of %d (out: %s)",
			x.Region, ofRole, serving, loses, x.Name, left, floor.Mbps, list(out))}}
	}
	return nil
}

package inventory

import (
	"fmt"

	"mayfly/internal/tomlfile"
)

// RingInternal is the ring of servers without users: new releases come to them first.
const RingInternal = "internal"

// Internal reports whether a server has no users but the fleet's own people.
func (s Server) Internal() bool { return s.Ring == RingInternal }

// Counted reports whether a server is part of what a floor's share is a share of: one that is meant to serve users all the time. A spare
// counts for a floor while it serves, an internal server never does.
func (s Server) Counted() bool { return s.Role == RoleVPN && !s.Spare && !s.Internal() }

// RackRegions returns the region of each rack.
func (f *Fleet) RackRegions() map[string]string {
	m := make(map[string]string, len(f.Racks))
	for _, r := range f.Racks {
		m[r.Name] = r.Region
	}
	return m
}

// Capacity returns what floors of a region are a share of, in Mbit/s: its servers but spares and the internal ring.
func (f *Fleet) Capacity(region string) int { return f.Capacities()[region] }

// Capacities returns Capacity of every region.
func (f *Fleet) Capacities() map[string]int {
	regionOf, total := f.RackRegions(), map[string]int{}
	for _, s := range f.Servers {
		if s.Counted() {
			total[regionOf[s.Rack]] += s.Capacity
		}
	}
	return total
}

// FirstMirror is the image mirror that a server asks first, "" for the controller's boot port.
func (f *Fleet) FirstMirror(s Server) string {
	if s.Mirror == "" && len(f.Mirrors) > 0 {
		return f.Mirrors[0]
	}
	return s.Mirror
}

// MirrorsOf are the fleet's mirrors in the order in which a server asks them: its own, then the others as the fleet has them.
func (f *Fleet) MirrorsOf(s Server) []string {
	first := f.FirstMirror(s)
	if first == "" {
		return nil
	}
	list := []string{first}
	for _, m := range f.Mirrors {
		if m != first {
			list = append(list, m)
		}
	}
	return list
}

// DomainOf names what a server shares with others in a failure domain: "rack", "switch", "bmc" or "mirror". "" is nothing.
func (f *Fleet) DomainOf(s Server, domain string) string {
	switch domain {
	case "rack":
		return s.Rack
	case "switch":
		return s.Switch
	case "bmc":
		return s.BMCNetwork
	case "mirror":
		return f.FirstMirror(s)
	}
	return ""
}

// domains checks what a rebuilt server shares with others, and whether it has users.
func (c *checker) domains(path string, s Server) error {
	for _, x := range []struct{ key, name string }{{"switch", s.Switch}, {"bmc_network", s.BMCNetwork}} {
		if x.name != "" && !label.MatchString(x.name) {
			return tomlfile.At(path+"."+x.key, fmt.Sprintf("for example %s = \"se-a-1\"", x.key), "server %q has %s %q, which is not a lower-case DNS label", s.Name, x.key, x.name)
		}
	}
	if s.Mirror != "" && !c.known[s.Mirror] {
		return tomlfile.At(path+".mirror", "one of mirrors at the top of fleet.toml, to the letter; left out it is the first of them", "server %q asks mirror %q first, which is none of the fleet's", s.Name, s.Mirror)
	}
	if s.Ring != "" && !s.Internal() {
		return tomlfile.At(path+".ring", "ring = \"internal\" for a server without users, or leave it out", "server %q is in ring %q, which does not exist", s.Name, s.Ring)
	}
	if s.Role != RoleVPN && (s.Ring != "" || s.Spare) {
		key := "ring"
		if s.Spare {
			key = "spare"
		}
		return tomlfile.At(path+"."+key, "leave it out, or say role = \"vpn\"", "server %q is a %s, which has no %s: it has no users", s.Name, s.Role, key)
	}
	if s.Internal() && s.Spare {
		return tomlfile.At(path+".spare", "an internal server takes nobody's place", "server %q is internal and a spare", s.Name)
	}
	return nil
}

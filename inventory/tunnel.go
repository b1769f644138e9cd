package inventory

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"mayfly/internal/tomlfile"
)

// Lengths of a tunnel network's prefix.
const (
	MinTunnelBits = 16 // the widest
	MaxTunnelBits = 29 // the narrowest: six hosts, of which one is the server
)

// CheckTunnel refuses what cannot be a server's tunnel network. It is the one rule: here, in the server and in its resolver.
func CheckTunnel(p netip.Prefix) error {
	switch {
	case !p.IsValid() || !p.Addr().Is4():
		return fmt.Errorf("tunnel network %s: it must be an IPv4 network from /%d to /%d", p, MinTunnelBits, MaxTunnelBits)
	case p != p.Masked():
		return fmt.Errorf("tunnel network %s has host bits set: write %s", p, p.Masked())
	case p.Bits() < MinTunnelBits || p.Bits() > MaxTunnelBits:
		return fmt.Errorf("tunnel network %s: it must be an IPv4 network from /%d to /%d", p, MinTunnelBits, MaxTunnelBits)
	case !p.Addr().IsPrivate() && !shared.Contains(p.Addr()):
		return fmt.Errorf("tunnel network %s: it must lie in a private network, or clients could not reach who has it", p)
	}
	return nil
}

// shared is for networks behind a provider's NAT (RFC 6598); nobody on the internet has its addresses.
var shared = netip.MustParsePrefix("100.64.0.0/10")

func (c *checker) tunnels() error {
	for i, s := range c.fleet.Servers {
		if s.Role != RoleVPN {
			continue
		}
		path := fmt.Sprintf("server[%d].tunnel", i)
		if err := network(path, s.Tunnel); err != nil {
			return err
		}
		if err := CheckTunnel(s.Tunnel); err != nil {
			return tomlfile.At(path, "for example tunnel = \"10.64.1.0/24\"", "server %q: %v", s.Name, err)
		}
		for _, m := range c.fleet.Network.Management {
			if m.Overlaps(s.Tunnel) {
				return tomlfile.At(path, "choose a network that is used nowhere else", "server %q has tunnel network %s, which overlaps management network %s", s.Name, s.Tunnel, m)
			}
		}
	}
	return c.overlaps()
}

// overlaps refuses tunnel networks that hold each other or an address that something has. Of networks in order, one that
// overlaps any other overlaps a neighbour.
func (c *checker) overlaps() error {
	var order []int
	for i, s := range c.fleet.Servers {
		if s.Role == RoleVPN {
			order = append(order, i)
		}
	}
	at := func(i int) netip.Prefix { return c.fleet.Servers[order[i]].Tunnel }
	slices.SortFunc(order, func(a, b int) int {
		p, q := c.fleet.Servers[a].Tunnel, c.fleet.Servers[b].Tunnel
		return cmp.Or(p.Addr().Compare(q.Addr()), cmp.Compare(p.Bits(), q.Bits()), cmp.Compare(a, b))
	})
	for i := 1; i < len(order); i++ {
		if at(i - 1).Overlaps(at(i)) {
			first, second := min(order[i-1], order[i]), max(order[i-1], order[i])
			o, s := c.fleet.Servers[first], c.fleet.Servers[second]
			return tomlfile.At(fmt.Sprintf("server[%d].tunnel", second), "give each server a network of its own", "servers %q and %q have overlapping tunnel networks %s and %s", o.Name, s.Name, o.Tunnel, s.Tunnel)
		}
	}
	for a, owner := range c.addresses {
		i, found := slices.BinarySearchFunc(order, a, func(i int, a netip.Addr) int {
			p := c.fleet.Servers[i].Tunnel
			if p.Contains(a) {
				return 0
			}
			return p.Addr().Compare(a)
		})
		if found {
			s := c.fleet.Servers[order[i]]
			return tomlfile.At(fmt.Sprintf("server[%d].tunnel", order[i]), "choose a network that is used nowhere else", "server %q has tunnel network %s, which holds the address %s of %s", s.Name, s.Tunnel, a, owner)
		}
	}
	return nil
}

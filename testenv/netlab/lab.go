package netlab

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// Addresses of the lab. They are the documentation networks (RFC 5737) and a private one, so that nothing outside is shadowed.
var (
	Management = netip.MustParsePrefix("10.77.0.0/24")
	Controller = netip.MustParseAddr("10.77.0.1")
	Bastion    = netip.MustParseAddr("10.77.0.2")

	Clients   = netip.MustParsePrefix("198.51.100.0/24")
	clientGW  = netip.MustParseAddr("198.51.100.1")
	Engineer  = netip.MustParseAddr("198.51.100.10") // on the address list; the VPN client too
	OffList   = netip.MustParseAddr("198.51.100.66") // not on it
	Targets   = netip.MustParsePrefix("203.0.113.0/24")
	targetGW  = netip.MustParseAddr("203.0.113.1")
	WebTarget = netip.MustParseAddr("203.0.113.10")
	DNSRoot   = netip.MustParseAddr("203.0.113.53")
)

// maxInterfaceName is Linux's IFNAMSIZ without its ending zero; the library cuts longer names silently.
const maxInterfaceName = 15

// Bridge is the servers' network inside core.
const Bridge = "mf0"

// Lab is the four namespaces of one environment.
type Lab struct {
	Core   Namespace // controller, bastion, and the servers' taps
	Client Namespace
	Target Namespace
	Cards  Namespace // loopback alone: between the readers of virtual cards, which listen on every address, and the cards
}

// Of names the lab that belongs to a state directory. Two directories never share one.
func Of(dir string) Lab {
	sum := sha256.Sum256([]byte(dir))
	prefix := "mf-" + hex.EncodeToString(sum[:3])
	return Lab{
		Core:   Namespace{prefix + "-core"},
		Client: Namespace{prefix + "-client"},
		Target: Namespace{prefix + "-target"},
		Cards:  Namespace{prefix + "-cards"},
	}
}

// Namespaces lists the lab's namespaces.
func (l Lab) Namespaces() []Namespace { return []Namespace{l.Core, l.Client, l.Target, l.Cards} }

// Create makes the lab with one tap for each name. On an error nothing of it is left.
func (l Lab) Create(taps []string) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Remove())
		}
	}()
	for _, n := range l.Namespaces() {
		if err := n.create(); err != nil {
			return err
		}
	}
	if err := l.Core.Do(func() error { return l.setUpCore(taps) }); err != nil {
		return fmt.Errorf("setting up %s: %w", l.Core.Name, err)
	}
	if err := l.join(l.Client, "client0", clientGW, []netip.Addr{Engineer, OffList}, Clients, netip.MustParsePrefix("0.0.0.0/0")); err != nil {
		return fmt.Errorf("setting up %s: %w", l.Client.Name, err)
	}
	if err := l.join(l.Target, "target0", targetGW, []netip.Addr{WebTarget, DNSRoot}, Targets, Management); err != nil {
		return fmt.Errorf("setting up %s: %w", l.Target.Name, err)
	}
	if err := l.Cards.Do(quiet); err != nil {
		return fmt.Errorf("setting up %s: %w", l.Cards.Name, err)
	}
	return nil
}

// Remove takes the lab away. Safe to repeat, and on a lab that was only half made.
func (l Lab) Remove() error {
	var errs []error
	for _, n := range l.Namespaces() {
		errs = append(errs, n.remove())
	}
	return errors.Join(errs...)
}

func (l Lab) setUpCore(taps []string) error {
	if err := quiet(); err != nil {
		return err
	}
	if err := sysctl("net.ipv4.ip_forward", "1"); err != nil {
		return err
	}
	bridge := &netlink.Bridge{LinkAttrs: attrs(Bridge)}
	if err := netlink.LinkAdd(bridge); err != nil {
		return fmt.Errorf("making bridge %s: %w", Bridge, err)
	}
	for _, a := range []netip.Addr{Controller, Bastion} {
		if err := address(bridge, netip.PrefixFrom(a, Management.Bits())); err != nil {
			return err
		}
	}
	if err := netlink.LinkSetUp(bridge); err != nil {
		return fmt.Errorf("setting %s up: %w", Bridge, err)
	}
	for _, name := range taps {
		if len(name) == 0 || len(name) > maxInterfaceName {
			return fmt.Errorf("making tap %q: a name has 1 to %d bytes", name, maxInterfaceName)
		}
		tap := &netlink.Tuntap{LinkAttrs: attrs(name), Mode: netlink.TUNTAP_MODE_TAP, Flags: netlink.TUNTAP_DEFAULTS | netlink.TUNTAP_VNET_HDR}
		if err := netlink.LinkAdd(tap); err != nil {
			return fmt.Errorf("making tap %q: %w", name, err)
		}
		for _, fd := range tap.Fds {
			if err := fd.Close(); err != nil {
				return fmt.Errorf("closing tap %q: %w", name, err)
			}
		}
		if err := netlink.LinkSetMaster(tap, bridge); err != nil {
			return fmt.Errorf("putting tap %q on %s: %w", name, Bridge, err)
		}
		if err := netlink.LinkSetUp(tap); err != nil {
			return fmt.Errorf("setting tap %q up: %w", name, err)
		}
	}
	return nil
}

// join ties a namespace to core with a veth pair: gateway on core's end, addresses on eth0 at the other, one route through the
// gateway.
func (l Lab) join(n Namespace, coreEnd string, gateway netip.Addr, addrs []netip.Addr, network, route netip.Prefix) error {
	err := l.Core.Do(func() error {
		peer, err := namespaceFile(n)
		if err != nil {
			return err
		}
		defer peer.Close()
		veth := &netlink.Veth{LinkAttrs: attrs(coreEnd), PeerName: "eth0", PeerNamespace: netlink.NsFd(int(peer.Fd()))}
		if err := netlink.LinkAdd(veth); err != nil {
			return fmt.Errorf("making veth %s: %w", coreEnd, err)
		}
		if err := address(veth, netip.PrefixFrom(gateway, network.Bits())); err != nil {
			return err
		}
		return netlink.LinkSetUp(veth)
	})
	if err != nil {
		return err
	}
	return n.Do(func() error {
		if err := quiet(); err != nil {
			return err
		}
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return fmt.Errorf("finding eth0: %w", err)
		}
		for _, a := range addrs {
			if err := address(link, netip.PrefixFrom(a, network.Bits())); err != nil {
				return err
			}
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return fmt.Errorf("setting eth0 up: %w", err)
		}
		r := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(route), Gw: gateway.AsSlice()}
		if err := netlink.RouteAdd(r); err != nil {
			return fmt.Errorf("adding route %s via %s: %w", route, gateway, err)
		}
		return nil
	})
}

// quiet sets what every namespace of the lab has: loopback up, IPv6 off, loose reverse path filter (the VPN client has one
// route table for each session).
func quiet() error {
	for _, s := range [][2]string{
		{"net.ipv6.conf.all.disable_ipv6", "1"},
		{"net.ipv6.conf.default.disable_ipv6", "1"},
		{"net.ipv4.conf.all.rp_filter", "2"},
		{"net.ipv4.conf.default.rp_filter", "2"},
		{"net.ipv4.ping_group_range", "0 2147483647"},
	} {
		if err := sysctl(s[0], s[1]); err != nil {
			return err
		}
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("finding lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("setting lo up: %w", err)
	}
	return nil
}

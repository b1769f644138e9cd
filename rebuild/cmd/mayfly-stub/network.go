package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"mayfly/internal/dump"
	"mayfly/rebuild/ticket"
)

// outside is the one network device that a server uses, whatever it is made of: mayfly-init and its firewall know it by this name.
const outside = "eth0"

// Bounds of waiting for the network.
const (
	deviceWait = 20 * time.Second // until devices appear after their driver was loaded
	upWait     = 20 * time.Second // until the device has a carrier and, for IPv6, an address of its own that works
	routeWait  = 15 * time.Second // for a router's advertisement, where the ticket names no gateway
	linkPoll   = 20 * time.Millisecond
	bondMonFor = 100 // milliseconds between looks at a bond's links
)

// network makes the device that the ticket describes and gives it the ticket's address. With DHCP, the network has to agree to that address:
// what a machine is comes from its ticket alone.
func (b *boot) network(ctx context.Context) error {
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return refusef(networkFailed, "setting lo up: %w", err)
	}
	t := b.ticket
	if err := quietIPv6(t); err != nil {
		return refusef(networkFailed, "%w", err)
	}
	link, err := makeDevice(ctx, t.Network)
	if err != nil {
		return refusef(networkFailed, "%w", err)
	}
	if err := waitCarrier(ctx, link); err != nil {
		return refusef(networkFailed, "%w", err)
	}
	gateway := t.Gateway
	switch t.Network.Mode {
	case ticket.DHCP4, ticket.DHCP6:
		lease, err := b.lease(ctx, link)
		if err != nil {
			return err
		}
		b.say("lease: %s", lease)
		if !gateway.IsValid() {
			gateway = lease.gateway
		}
		if lease.address != t.Address.Addr() {
			// With the other address alone the controller can be told.
			err := configure(link, netip.PrefixFrom(lease.address, t.Address.Bits()), gateway)
			b.online = err == nil
			return refusef(leaseDiffers, "the lease is for %s, the ticket for %s", lease.address, t.Address.Addr())
		}
	}
	if err := configure(link, t.Address, gateway); err != nil {
		return refusef(networkFailed, "%w", err)
	}
	if t.Network.Mode == ticket.DHCP6 && !gateway.IsValid() {
		router, err := keepRouter(ctx, link)
		if err != nil {
			return refusef(networkFailed, "%w", err)
		}
		if !router.IsValid() {
			b.say("no router has advertised itself: what is not on this network is out of reach")
		}
	}
	b.online = true
	return nil
}

// quietIPv6 lets the kernel take no address from the network, and a route only where the ticket leaves it to the network.
func quietIPv6(t *ticket.Ticket) error {
	settings := map[string]string{"accept_ra": "0", "accept_ra_pinfo": "0", "autoconf": "0", "accept_redirects": "0"}
	if t.Network.Mode == ticket.DHCP6 && !t.Gateway.IsValid() {
		settings["accept_ra"] = "1"
	}
	devices, err := dump.Whole(netlink.LinkList)
	if err != nil {
		return fmt.Errorf("listing network devices: %w", err)
	}
	names := []string{"default"}
	for _, d := range devices { // those that are there already
		names = append(names, d.Attrs().Name)
	}
	for _, name := range names {
		for key, value := range settings {
			if err := setIPv6(name, key, value); err != nil {
				return err
			}
		}
	}
	return nil
}

func setIPv6(device, name, value string) error {
	if err := os.WriteFile(filepath.Join("/proc/sys/net/ipv6/conf", device, name), []byte(value), 0o644); err != nil {
		return fmt.Errorf("setting up IPv6: %w", err)
	}
	return nil
}

// makeDevice finds the ticket's devices and returns the one, called outside, that is up: a device, several as a bond, or a VLAN of either.
func makeDevice(ctx context.Context, n ticket.Network) (netlink.Link, error) {
	ports, err := findDevices(ctx, n.MACs)
	if err != nil {
		return nil, err
	}
	name := outside
	if n.VLAN != 0 {
		name = "trunk0"
	}
	var link netlink.Link
	if n.Bond == "" {
		link, err = rename(ports[0], name)
	} else {
		link, err = bond(ports, n.Bond, name)
	}
	if err != nil {
		return nil, err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return nil, fmt.Errorf("setting %s up: %w", name, err)
	}
	if n.VLAN == 0 {
		return netlink.LinkByName(name)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex = outside, link.Attrs().Index
	if err := setIPv6(name, "disable_ipv6", "1"); err != nil { // nothing untagged
		return nil, err
	}
	if err := netlink.LinkAdd(&netlink.Vlan{LinkAttrs: attrs, VlanId: n.VLAN}); err != nil {
		return nil, fmt.Errorf("making VLAN %d: %w", n.VLAN, err)
	}
	if link, err = netlink.LinkByName(outside); err == nil {
		err = netlink.LinkSetUp(link)
	}
	if err != nil {
		return nil, fmt.Errorf("setting up VLAN %d: %w", n.VLAN, err)
	}
	return netlink.LinkByName(outside)
}

// findDevices waits for the Ethernet devices with these hardware addresses, in their order; for the first Ethernet device without any. Every
// device gets a name that is not outside.
func findDevices(ctx context.Context, macs []string) ([]netlink.Link, error) {
	ctx, cancel := context.WithTimeout(ctx, deviceWait)
	defer cancel()
	for {
		links, err := dump.Whole(netlink.LinkList)
		if err != nil {
			return nil, fmt.Errorf("listing network devices: %w", err)
		}
		found, missing := choose(links, macs)
		if len(missing) == 0 {
			return apart(links, found)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("no network device %s after %s", strings.Join(missing, ", "), deviceWait)
		case <-time.After(linkPoll):
		}
	}
}

// choose picks devices.
func choose(links []netlink.Link, macs []string) (found []netlink.Link, missing []string) {
	var ethernet []netlink.Link
	for _, l := range links {
		a := l.Attrs()
		if a.Flags&net.FlagLoopback == 0 && a.EncapType == "ether" && a.RawFlags&unix.IFF_NOARP == 0 && l.Type() == "device" {
			ethernet = append(ethernet, l)
		}
	}
	if len(macs) == 0 {
		if len(ethernet) == 0 {
			return nil, []string{"of Ethernet"}
		}
		return ethernet[:1], nil
	}
	for _, mac := range macs {
		before := len(found)
		for _, l := range ethernet {
			if l.Attrs().HardwareAddr.String() == mac && len(found) == before {
				found = append(found, l)
			}
		}
		if len(found) == before {
			missing = append(missing, mac)
		}
	}
	return found, missing
}

// apart renames whatever is called outside and was not chosen, and then the chosen ones.
func apart(links, found []netlink.Link) ([]netlink.Link, error) {
	for _, l := range links {
		if l.Attrs().Name == outside {
			if _, err := rename(l, "other0"); err != nil {
				return nil, err
			}
		}
	}
	for i, l := range found {
		port, err := rename(l, fmt.Sprintf("port%d", i))
		if err != nil {
			return nil, err
		}
		found[i] = port
	}
	return found, nil
}

// rename gives a device that is down another name.
func rename(link netlink.Link, name string) (netlink.Link, error) {
	if err := netlink.LinkSetName(link, name); err != nil {
		return nil, fmt.Errorf("renaming %s: %w", link.Attrs().Name, err)
	}
	return netlink.LinkByIndex(link.Attrs().Index)
}

func bond(ports []netlink.Link, mode, name string) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr = name, ports[0].Attrs().HardwareAddr
	made := netlink.NewLinkBond(attrs)
	made.Mode, made.Miimon = netlink.StringToBondMode(mode), bondMonFor
	if mode == ticket.LACP {
		made.LacpRate = netlink.BOND_LACP_RATE_FAST
	}
	if err := netlink.LinkAdd(made); err != nil {
		return nil, fmt.Errorf("making a bond: %w", err)
	}
	link, err := netlink.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("making a bond: %w", err)
	}
	for _, p := range ports {
		if err := netlink.LinkSetMasterByIndex(p, link.Attrs().Index); err != nil {
			return nil, fmt.Errorf("putting %s into the bond: %w", p.Attrs().Name, err)
		}
		if err := netlink.LinkSetUp(p); err != nil {
			return nil, fmt.Errorf("setting %s up: %w", p.Attrs().Name, err)
		}
	}
	return link, nil
}

// waitCarrier waits until frames can go out.
func waitCarrier(ctx context.Context, link netlink.Link) error {
	ctx, cancel := context.WithTimeout(ctx, upWait)
	defer cancel()
	for {
		now, err := netlink.LinkByIndex(link.Attrs().Index)
		if err != nil {
			return fmt.Errorf("looking at %s: %w", outside, err)
		}
		if s := now.Attrs().OperState; s == netlink.OperUp || s == netlink.OperUnknown {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s has no carrier after %s", outside, upWait)
		case <-time.After(linkPoll):
		}
	}
}

// configure gives the device its address and the route through the gateway, if there is one.
func configure(link netlink.Link, address netip.Prefix, gateway netip.Addr) error {
	a := &netlink.Addr{IPNet: ipNet(address)}
	if address.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD // whose it is was settled by who signed the ticket
	}
	if err := netlink.AddrAdd(link, a); err != nil {
		return fmt.Errorf("giving %s the address %s: %w", outside, address, err)
	}
	if gateway.IsValid() {
		route := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: gateway.AsSlice()}
		if !address.Contains(gateway) {
			route.Flags = int(netlink.FLAG_ONLINK)
		}
		if err := netlink.RouteAdd(route); err != nil {
			return fmt.Errorf("adding the route through %s: %w", gateway, err)
		}
	}
	return nil
}

// keepRouter waits until a router has advertised itself, and makes its route one that no later advertisement, of whomever, changes or ends.
func keepRouter(ctx context.Context, link netlink.Link) (netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, routeWait)
	defer cancel()
	for {
		routes, err := dump.Whole(func() ([]netlink.Route, error) { return netlink.RouteList(link, netlink.FAMILY_V6) })
		if err != nil {
			return netip.Addr{}, fmt.Errorf("listing routes of %s: %w", outside, err)
		}
		for _, r := range routes {
			if r.Gw == nil || r.Dst != nil && !r.Dst.IP.IsUnspecified() {
				continue
			}
			if err := setIPv6(outside, "accept_ra", "0"); err != nil {
				return netip.Addr{}, err
			}
			kept := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: r.Gw}
			if err := netlink.RouteReplace(kept); err != nil {
				return netip.Addr{}, fmt.Errorf("keeping the route through %s: %w", r.Gw, err)
			}
			return addressOf(r.Gw), nil
		}
		select {
		case <-ctx.Done():
			return netip.Addr{}, setIPv6(outside, "accept_ra", "0")
		case <-time.After(linkPoll):
		}
	}
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

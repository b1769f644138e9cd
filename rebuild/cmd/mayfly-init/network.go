package main

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"mayfly/rebuild/ticket"
)

// outside is the server's one network interface.
const outside = "eth0"

// linkWait is how long the interface may take to be there with its carrier.
const linkWait = 10 * time.Second

// configureNetwork sets host name, loopback, and the ticket's address and gateway. mayfly-stub has done the same in order to
// fetch the root; setting it again makes it so whatever the stub did.
func configureNetwork(t *ticket.Ticket) error {
	if err := unix.Sethostname([]byte(t.Server)); err != nil {
		return fmt.Errorf("setting the host name: %w", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("finding lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("setting lo up: %w", err)
	}
	link, err := waitLink(outside)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("setting %s up: %w", outside, err)
	}
	addr := &netlink.Addr{IPNet: ipNet(t.Address)}
	if err := netlink.AddrReplace(link, addr); err != nil {
		return fmt.Errorf("setting %s on %s: %w", t.Address, outside, err)
	}
	if !t.Gateway.IsValid() {
		return nil
	}
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: t.Gateway.AsSlice()}
	if err := netlink.RouteReplace(route); err != nil {
		return fmt.Errorf("setting the gateway %s: %w", t.Gateway, err)
	}
	return nil
}

// waitLink waits until the interface is there.
func waitLink(name string) (netlink.Link, error) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(linkWait); ; <-tick.C {
		link, err := netlink.LinkByName(name)
		if err == nil {
			return link, nil
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("waiting for %s: %w", name, err)
		}
	}
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// How long a network device may take to appear after its driver was loaded.
const (
	deviceWait = 20 * time.Second
	devicePoll = 20 * time.Millisecond
)

// network gives the first network device the ticket's address. There is no DHCP: what a machine is comes from its ticket alone.
func (b *boot) network(ctx context.Context) error {
	link, err := firstDevice(ctx)
	if err != nil {
		return refusef(networkFailed, "%w", err)
	}
	if lo, err := netlink.LinkByName("lo"); err == nil {
		if err := netlink.LinkSetUp(lo); err != nil {
			return refusef(networkFailed, "setting lo up: %w", err)
		}
	}
	name := link.Attrs().Name
	if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: ipNet(b.ticket.Address)}); err != nil {
		return refusef(networkFailed, "giving %s the address %s: %w", name, b.ticket.Address, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return refusef(networkFailed, "setting %s up: %w", name, err)
	}
	if b.ticket.Gateway.IsValid() {
		route := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: b.ticket.Gateway.AsSlice()}
		if err := netlink.RouteAdd(route); err != nil {
			return refusef(networkFailed, "adding the route through %s: %w", b.ticket.Gateway, err)
		}
	}
	b.online = true
	return nil
}

// firstDevice waits for an Ethernet device.
func firstDevice(ctx context.Context) (netlink.Link, error) {
	ctx, cancel := context.WithTimeout(ctx, deviceWait)
	defer cancel()
	for {
		links, err := netlink.LinkList()
		if err != nil {
			return nil, fmt.Errorf("listing network devices: %w", err)
		}
		for _, l := range links {
			a := l.Attrs()
			if a.Flags&net.FlagLoopback == 0 && a.EncapType == "ether" && a.RawFlags&unix.IFF_NOARP == 0 {
				return l, nil
			}
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("no network device after %s", deviceWait)
		case <-time.After(devicePoll):
		}
	}
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

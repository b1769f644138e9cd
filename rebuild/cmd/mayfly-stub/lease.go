package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/dhcpv6/nclient6"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"mayfly/internal/dump"
	"mayfly/rebuild/ticket"
)

// Bounds of DHCP.
const (
	dhcpRounds = 8               // of asking, each twice as long as the one before
	dhcpFirst  = 1 * time.Second // for an answer
	dhcpOthers = 4               // rounds after which another address than the ticket's is the network's last word
	dhcpLimit  = 90 * time.Second
)

// lease is what the network says that this machine's address is. Where the network knows several, it is the ticket's if that is among them.
type lease struct {
	address netip.Addr
	gateway netip.Addr // of DHCPv4; not valid: none
	server  string
}

func (l lease) String() string {
	if l.gateway.IsValid() {
		return fmt.Sprintf("%s through %s, from %s", l.address, l.gateway, l.server)
	}
	return fmt.Sprintf("%s, from %s", l.address, l.server)
}

// lease asks for the ticket's address. An offer of another one is passed over as long as the right one may come; only where none did it is
// taken, for the report.
func (b *boot) lease(ctx context.Context, link netlink.Link) (lease, error) {
	ctx, cancel := context.WithTimeout(ctx, dhcpLimit)
	defer cancel()
	want := b.ticket.Address.Addr()
	ask := lease4
	if b.ticket.Network.Mode == ticket.DHCP6 {
		if err := waitLinkLocal(ctx, link); err != nil {
			return lease{}, refusef(networkFailed, "%w", err)
		}
		ask = lease6
	}
	var other lease
	err := errors.New("no answer")
	wait := dhcpFirst
	for round := 1; round <= dhcpRounds && ctx.Err() == nil; round++ {
		var got lease
		if got, err = ask(ctx, wait, link.Attrs(), want); err == nil {
			if got.address == want {
				return got, nil
			}
			other = got
			if round >= dhcpOthers { // nobody else answers
				break
			}
		} else {
			b.say("dhcp %d: %s", round, oneLine(err.Error()))
		}
		wait = min(2*wait, longestWait)
	}
	if other.address.IsValid() {
		return other, nil
	}
	return lease{}, refusef(networkFailed, "no lease: %w", err)
}

// lease4 does DISCOVER, OFFER, REQUEST, ACK (RFC 2131) once.
func lease4(ctx context.Context, wait time.Duration, device *netlink.LinkAttrs, want netip.Addr) (lease, error) {
	client, err := nclient4.New(device.Name, nclient4.WithTimeout(wait), nclient4.WithRetry(1), nclient4.WithHWAddr(device.HardwareAddr))
	if err != nil {
		return lease{}, fmt.Errorf("dhcp: %w", err)
	}
	defer client.Close()
	discover, err := dhcpv4.NewDiscovery(device.HardwareAddr, dhcpv4.WithBroadcast(true),
		dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(want.AsSlice())), dhcpv4.WithOption(dhcpv4.OptMaxMessageSize(nclient4.MaxMessageSize)))
	if err != nil {
		return lease{}, fmt.Errorf("dhcp: %w", err)
	}
	var other *dhcpv4.DHCPv4
	offer, err := client.SendAndRead(ctx, nclient4.DefaultServers, discover, func(m *dhcpv4.DHCPv4) bool {
		if m.MessageType() != dhcpv4.MessageTypeOffer || m.ServerIdentifier() == nil {
			return false
		}
		if addressOf(m.YourIPAddr) == want {
			return true
		}
		other = m
		return false
	})
	if err != nil {
		if other == nil {
			return lease{}, fmt.Errorf("dhcp: %w", err)
		}
		offer = other
	}
	got, err := client.RequestFromOffer(ctx, offer, dhcpv4.WithBroadcast(true))
	if err != nil {
		return lease{}, fmt.Errorf("dhcp: %w", err)
	}
	l := lease{address: addressOf(got.ACK.YourIPAddr), server: got.ACK.ServerIdentifier().String()}
	if routers := got.ACK.Router(); len(routers) > 0 {
		l.gateway = addressOf(routers[0])
	}
	if !l.address.Is4() || !usable(l.address) || l.gateway.IsValid() && !usable(l.gateway) {
		return lease{}, fmt.Errorf("dhcp: a lease of %s through %s", l.address, l.gateway)
	}
	return l, nil
}

// lease6 does SOLICIT, ADVERTISE, REQUEST, REPLY (RFC 8415) once. The route comes from router advertisements, or from the ticket.
func lease6(ctx context.Context, wait time.Duration, device *netlink.LinkAttrs, want netip.Addr) (lease, error) {
	conn, err := nclient6.NewIPv6UDPConn(device.Name, dhcpv6.DefaultClientPort)
	if err != nil {
		return lease{}, fmt.Errorf("dhcp: %w", err)
	}
	client, err := nclient6.NewWithConn(conn, device.HardwareAddr, nclient6.WithTimeout(wait), nclient6.WithRetry(1))
	if err != nil {
		return lease{}, errors.Join(fmt.Errorf("dhcp: %w", err), conn.Close())
	}
	defer client.Close()
	duid := &dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: device.HardwareAddr}
	id := dhcpv6.OptIANA{IaId: [4]byte{'m', 'a', 'y', '0'}}
	advertise, err := solicit(ctx, client, device.HardwareAddr, want, dhcpv6.WithClientID(duid), func(m dhcpv6.DHCPv6) {
		ask := id
		ask.Options.Add(&dhcpv6.OptIAAddress{IPv6Addr: net.IP(want.AsSlice())})
		m.UpdateOption(&ask)
	})
	if err != nil {
		return lease{}, fmt.Errorf("dhcp: %w", err)
	}
	reply, err := client.Request(ctx, advertise)
	if err != nil {
		return lease{}, fmt.Errorf("dhcp: %w", err)
	}
	if status := reply.Options.Status(); status != nil && status.StatusCode != iana.StatusSuccess {
		return lease{}, fmt.Errorf("dhcp: status %s", status.StatusCode)
	}
	var l lease
	if server := reply.Options.ServerID(); server != nil {
		l.server = server.String()
	}
	l.address = address6(reply, want)
	if !l.address.IsValid() {
		return lease{}, errors.New("dhcp: a reply without an address")
	}
	return l, nil
}

// solicit waits for an advertisement of the wanted address. Another one is taken where that does not come in time: any server on the link
// may be the first to answer.
func solicit(ctx context.Context, client *nclient6.Client, hardware net.HardwareAddr, want netip.Addr, with ...dhcpv6.Modifier) (*dhcpv6.Message, error) {
	ask, err := dhcpv6.NewSolicit(hardware, with...)
	if err != nil {
		return nil, err
	}
	var other *dhcpv6.Message
	advertise, err := client.SendAndRead(ctx, client.RemoteAddr(), ask, func(m *dhcpv6.Message) bool {
		if m.MessageType != dhcpv6.MessageTypeAdvertise || m.Options.ServerID() == nil {
			return false
		}
		switch address6(m, want) {
		case want:
			return true
		case netip.Addr{}:
		default:
			other = m
		}
		return false
	})
	if err != nil && other != nil {
		return other, nil
	}
	return advertise, err
}

// address6 is the address of a message of DHCPv6: the wanted one if it is among several.
func address6(m *dhcpv6.Message, want netip.Addr) (address netip.Addr) {
	for _, ia := range m.Options.IANA() {
		for _, a := range ia.Options.Addresses() {
			got := addressOf(a.IPv6Addr)
			if a.ValidLifetime > 0 && got.Is6() && usable(got) && (!address.IsValid() || got == want) {
				address = got
			}
		}
	}
	return address
}

func addressOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// usable is an address that a machine may have.
func usable(a netip.Addr) bool {
	return a.IsValid() && a.IsGlobalUnicast() && a != netip.IPv4Unspecified()
}

// waitLinkLocal waits until the device's own address has been found to be its alone: from it DHCPv6 is asked.
func waitLinkLocal(ctx context.Context, link netlink.Link) error {
	ctx, cancel := context.WithTimeout(ctx, upWait)
	defer cancel()
	for {
		addrs, err := dump.Whole(func() ([]netlink.Addr, error) { return netlink.AddrList(link, netlink.FAMILY_V6) })
		if err != nil {
			return fmt.Errorf("listing addresses of %s: %w", outside, err)
		}
		for _, a := range addrs {
			if a.IP.IsLinkLocalUnicast() && a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) == 0 {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s has no link-local address after %s", outside, upWait)
		case <-time.After(linkPoll):
		}
	}
}

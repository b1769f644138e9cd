package bastion

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"mayfly/bastion/listen"
	"mayfly/inventory"
)

// reachable refuses addresses that are not a server's, whatever the inventory says: this machine, its link, metadata services, the fleet's
// own bastions and controller.
func (s *Server) reachable(r *ruling, address netip.Addr) error {
	switch what := inventory.Special(address); {
	case what != "":
		return fmt.Errorf("%s is no server's address: it is %s", address, what)
	case address == s.config.Listen.Addr().Unmap():
		return fmt.Errorf("%s is this bastion", address)
	case address == r.bundle.Inventory.Controller.Address:
		return fmt.Errorf("%s is the controller", address)
	}
	for _, b := range r.bundle.Inventory.AllBastions() {
		if address == b.Address.Unmap() {
			return fmt.Errorf("%s is bastion %s", address, b.Name)
		}
	}
	own, err := s.ownAddresses()
	if err != nil {
		return fmt.Errorf("listing this machine's addresses: %w", err)
	}
	if slices.Contains(own, address) {
		return fmt.Errorf("%s is this machine", address)
	}
	return nil
}

func machineAddresses() ([]netip.Addr, error) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var own []netip.Addr
	for _, a := range list {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				own = append(own, ip.Unmap())
			}
		}
	}
	return own, nil
}

// dialingFrom dials from the address that the bastion listens on: servers accept SSH from the inventory's bastion addresses only, and
// a host may have others. With an unspecified or loopback address the system chooses.
func dialingFrom(own netip.Addr) func(context.Context, netip.AddrPort) (halfCloser, error) {
	return func(ctx context.Context, address netip.AddrPort) (halfCloser, error) {
		dialer := net.Dialer{KeepAliveConfig: listen.KeepAlive}
		if own := own.Unmap(); !own.IsUnspecified() && !own.IsLoopback() && own.Is4() == address.Addr().Unmap().Is4() {
			dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(own, 0))
		}
		dialer.SetMultipathTCP(false)
		conn, err := dialer.DialContext(ctx, "tcp", address.String())
		if err != nil {
			return nil, err
		}
		return conn.(*net.TCPConn), nil
	}
}

package server

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"

	"mayfly/internal/hint"
)

// raise gives the interface its address and turns forwarding on.
func raise(c Config) error {
	if _, err := netlink.LinkByName(c.Outside); err != nil {
		return hint.New(fmt.Errorf("finding the outside interface %s: %w", c.Outside, err), "set outside to the interface of the default route")
	}
	link, err := netlink.LinkByName(Interface)
	if err != nil {
		return fmt.Errorf("finding %s: %w", Interface, err)
	}
	// IPv6 is off in the tunnel before it is up, so that it never has an address of its own there.
	if err := sysctl("net/ipv6/conf/"+Interface+"/disable_ipv6", "1"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	address := &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(c.Address(), c.Network.Bits()))}
	if err := netlink.AddrReplace(link, address); err != nil {
		return fmt.Errorf("setting %s on %s: %w", c.Address(), Interface, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("setting %s up: %w", Interface, err)
	}
	for _, s := range [][2]string{
		{"net/ipv4/conf/" + Interface + "/send_redirects", "0"},
		{"net/ipv4/conf/" + Interface + "/accept_redirects", "0"},
		{forwardKey, "1"},
	} {
		if err := sysctl(s[0], s[1]); err != nil {
			return err
		}
	}
	return nil
}

func sysctl(name, value string) error {
	if err := os.WriteFile("/proc/sys/"+name, []byte(value), 0o644); err != nil {
		return fmt.Errorf("setting %s to %s: %w", name, value, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

package inventory

import (
	"net/netip"
	"strings"
	"testing"
)

func TestSpecial(t *testing.T) {
	for text, want := range map[string]string{
		"0.0.0.0": "this network's", "0.0.0.1": "this network's", "127.0.0.1": "loopback", "127.255.255.254": "loopback", "::1": "loopback", "::": "loopback",
		"::127.0.0.1": "loopback", "::ffff:127.0.0.1": "loopback", "169.254.169.254": "link-local", "::ffff:169.254.169.254": "link-local", "fe80::1": "link-local",
		"fe80::1%eth0": "link-local", "fec0::1": "site-local", "224.0.0.1": "multicast", "ff02::1": "multicast", "240.0.0.1": "reserved", "255.255.255.255": "reserved",
		"192.0.0.192": "a protocol's", "100.100.100.200": "a cloud's metadata", "168.63.129.16": "a cloud's metadata", "fd00:ec2::254": "a cloud's metadata",
		"fd20:ce::254": "a cloud's metadata", "fd00:42::42": "a cloud's metadata", "64:ff9b::7f00:1": "translated IPv4", "64:ff9b:1::1": "translated IPv4",
		"2002:7f00:1::1": "tunnelled IPv4", "2001:0:1::1": "tunnelled IPv4", "100::1": "discarded",
		"10.77.0.11": "", "100.100.100.199": "", "168.63.129.15": "", "192.0.2.1": "", "198.51.100.7": "", "2001:db8::1": "", "fd00:ec2::253": "", "2003::1": "",
	} {
		if got := Special(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s: got %q, want %q", text, got, want)
		}
	}
	if Special(netip.Addr{}) == "" {
		t.Error("the zero address is a server's")
	}
	for _, s := range special {
		if s.prefix != s.prefix.Masked() {
			t.Errorf("%s has host bits", s.prefix)
		}
	}
}

// TestServerWithSpecialAddress: neither a rebuilt server nor a host can have one.
func TestServerWithSpecialAddress(t *testing.T) {
	for _, text := range []string{"169.254.169.254/32", "127.0.0.1/8", "100.100.100.200/24", "fd00:ec2::254/64", "64:ff9b::7f00:1/96", "0.0.0.1/24", "240.0.0.1/24"} {
		for _, role := range []string{RoleVPN, RoleHost} {
			c := &checker{fleet: &Fleet{}, addresses: map[netip.Addr]string{}, names: map[string]string{}}
			s := Server{Name: "se-1", Role: role, Address: netip.MustParsePrefix(text)}
			check := c.serverAddress
			if role == RoleHost {
				check = c.host
			}
			if err := check("server[0]", s); err == nil || !strings.Contains(err.Error(), "no server's") {
				t.Errorf("%s %s: got %v", role, text, err)
			}
		}
	}
}

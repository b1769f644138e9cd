package inventory

import (
	"fmt"
	"net/netip"

	"mayfly/internal/tomlfile"
)

// special are addresses that no server has: what a machine, its link or a cloud's metadata service answers at, and forms of IPv6 that hide
// an IPv4 address. Private and documentation networks are none of them.
var special = []struct {
	prefix netip.Prefix
	name   string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "this network's"}, // Linux connects to itself
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local"}, // and where most clouds have metadata
	{netip.MustParsePrefix("192.0.0.0/24"), "a protocol's"}, // and Oracle's metadata
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved"}, // and broadcast
	{netip.MustParsePrefix("100.100.100.200/32"), "a cloud's metadata"},
	{netip.MustParsePrefix("168.63.129.16/32"), "a cloud's metadata"},
	{netip.MustParsePrefix("::/96"), "loopback"}, // and unspecified, and IPv4-compatible
	{netip.MustParsePrefix("::ffff:0:0/96"), "IPv4-mapped"},
	{netip.MustParsePrefix("64:ff9b::/96"), "translated IPv4"},
	{netip.MustParsePrefix("64:ff9b:1::/48"), "translated IPv4"},
	{netip.MustParsePrefix("100::/64"), "discarded"},
	{netip.MustParsePrefix("2001::/32"), "tunnelled IPv4"},
	{netip.MustParsePrefix("2002::/16"), "tunnelled IPv4"},
	{netip.MustParsePrefix("fe80::/10"), "link-local"},
	{netip.MustParsePrefix("fec0::/10"), "site-local"},
	{netip.MustParsePrefix("ff00::/8"), "multicast"},
	{netip.MustParsePrefix("fd00:ec2::254/128"), "a cloud's metadata"},
	{netip.MustParsePrefix("fd20:ce::254/128"), "a cloud's metadata"},
	{netip.MustParsePrefix("fd00:42::42/128"), "a cloud's metadata"},
}

// Special says what an address is that no server has; it is empty for one that a server may have. An IPv4 address in IPv6 form is the
// IPv4 address.
func Special(a netip.Addr) (name string) {
	if !a.IsValid() {
		return "invalid"
	}
	a = a.Unmap().WithZone("")
	for _, s := range special {
		if s.prefix.Contains(a) {
			return s.name
		}
	}
	return ""
}

// address asks for one usable unicast address in its own family's form.
func address(path string, a netip.Addr) error {
	if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.Is4In6() || a.Zone() != "" {
		return tomlfile.At(path, "for example \"192.0.2.1\"", "%s is no usable address", path)
	}
	return nil
}

// network asks for a prefix without host bits.
func network(path string, p netip.Prefix) error {
	if !p.IsValid() || p.Addr().Is4In6() {
		return tomlfile.At(path, "for example \"192.0.2.0/24\"", "%s is no network", path)
	}
	if p != p.Masked() {
		return tomlfile.At(path, fmt.Sprintf("write %q", p.Masked()), "%s is %s, which has host bits set", path, p)
	}
	return nil
}

func within(networks []netip.Prefix, a netip.Addr) bool {
	for _, p := range networks {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// last returns the broadcast address of an IPv4 prefix.
func last(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}

// ordinary refuses for a server what no server has.
func ordinary(path, name string, a netip.Addr) error {
	if err := address(path, a); err != nil {
		return err
	}
	if what := Special(a); what != "" {
		return tomlfile.At(path, "give the server's own address", "server %q has address %s, which is no server's: it is %s", name, a, what)
	}
	return nil
}

package policies

import (
	"net/netip"
	"reflect"
	"testing"
)

func TestOutside(t *testing.T) {
	prefixes := func(text ...string) (list []netip.Prefix) {
		for _, s := range text {
			list = append(list, netip.MustParsePrefix(s))
		}
		return list
	}
	p := Policy{
		SSH: SSH{Allow: prefixes("192.0.2.0/24", "2001:db8::/32")},
		Engineers: []Engineer{
			{Name: "everywhere"},
			{Name: "narrow", Allow: prefixes("192.0.2.7/32")},
			{Name: "wide", Allow: prefixes("192.0.0.0/16")},
			{Name: "partly", Allow: prefixes("2001:db8:1::/48", "198.51.100.0/24")},
			{Name: "alice", Allow: prefixes("10.0.0.0/8", "fd00::/8")},
		},
		Robots: []Robot{{Name: "ci", Source: netip.MustParsePrefix("203.0.113.1/32")}, {Name: "backup", Source: netip.MustParsePrefix("192.0.2.9/32")}},
	}
	want := []Outside{
		{"partly", netip.MustParsePrefix("198.51.100.0/24"), false},
		{"alice", netip.MustParsePrefix("10.0.0.0/8"), true}, {"alice", netip.MustParsePrefix("fd00::/8"), true},
		{"ci", netip.MustParsePrefix("203.0.113.1/32"), true},
	}
	if got := p.Outside(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

package origin

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestTable(t *testing.T) {
	table, err := parseTable("networks", []byte("# ours\n192.0.2.0/24 office\n192.0.2.128/25 lab # upstairs\n2001:db8::/32 six\n\n"))
	if err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]string{
		"192.0.2.1": "office", "192.0.2.200": "lab", "::ffff:192.0.2.1": "office", "2001:db8:1::1": "six",
		"198.51.100.7": "198.51.100.0/24", "2001:db9:1:2::3": "2001:db9:1::/48",
	} {
		if got := table.Name(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s: got %q, want %q", address, got, want)
		}
	}
	if got := table.Name(netip.Addr{}); got != "nowhere" {
		t.Errorf("no address: %q", got)
	}
	for text, want := range map[string]string{
		"192.0.2.0/24\n": "networks:1: want a prefix and a name", "\n192.0.2.1/24 x\n": "networks:2: ", "x y\n": "networks:1: ",
		"192.0.2.0/24 a\n192.0.2.0/24 b\n": "networks:2: 192.0.2.0/24 is there twice", "192.0.2.0/24 \x1b[0m\n": "name", "::ffff:192.0.2.0/120 x\n": "IPv4",
		"192.0.2.0/24 " + strings.Repeat("x", maxNetworkName+1): "name",
	} {
		if _, err := parseTable("networks", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}

// TestKnownIsBounded forgets who used a network longest ago.
func TestKnownIsBounded(t *testing.T) {
	k := &Known{users: make(map[string]map[string]time.Time)}
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 2 * maxUserNetworks {
		k.Note("anna", time.Duration(i).String(), now.Add(time.Duration(i)*time.Second))
	}
	if _, ok := k.users["anna"][time.Duration(0).String()]; ok || len(k.users["anna"]) != maxUserNetworks {
		t.Errorf("%d networks", len(k.users["anna"]))
	}
	for i := range 2 * maxUsers {
		k.Note(time.Duration(i).String(), "office", now.Add(time.Hour+time.Duration(i)*time.Second))
	}
	if _, ok := k.users["anna"]; ok || len(k.users) != maxUsers {
		t.Errorf("%d users", len(k.users))
	}
	for _, text := range []string{"", "{}", `{"kind":"x"}`, `{"kind":"` + kindKnown + `","more":1}`} {
		if err := k.parse([]byte(text)); err == nil {
			t.Errorf("%q: no error", text)
		}
	}
}

func FuzzTable(f *testing.F) {
	f.Add([]byte("192.0.2.0/24 office\n2001:db8::/32 six # x\n"), "192.0.2.1")
	f.Fuzz(func(t *testing.T, data []byte, address string) {
		table, err := parseTable("networks", data)
		if err != nil {
			return
		}
		if a, err := netip.ParseAddr(address); err == nil && table.Name(a) == "" {
			t.Errorf("%s has no name", a)
		}
	})
}

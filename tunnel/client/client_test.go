package client

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mayfly/internal/hint"
	"mayfly/inventory"
	"mayfly/tunnel/checkin"
	"mayfly/tunnel/device"
	"mayfly/tunnel/wire"
)

func list() *checkin.List {
	return &checkin.List{Servers: []checkin.Server{
		{Name: "se-1", Region: "se"}, {Name: "se-2", Region: "se", Draining: true}, {Name: "se-3", Region: "se"}, {Name: "nl-1", Region: "nl"},
	}}
}

func TestCandidates(t *testing.T) {
	keep := func(int, func(i, j int)) {}
	for _, c := range []struct{ name, region, except, want string }{
		{"any", "", "", "se-1 se-3 nl-1"},
		{"a region", "se", "", "se-1 se-3"},
		{"another than the current", "se", "se-1", "se-3"},
		{"the only one", "nl", "nl-1", "error: choosing a server: of 1 none takes new sessions"},
		{"no such region", "us", "", "error: choosing a server: none in region \"us\""},
	} {
		found, err := candidates(list(), c.region, c.except, keep)
		var names []string
		for _, s := range found {
			names = append(names, s.Name)
		}
		got := strings.Join(names, " ")
		if err != nil {
			got = "error: " + err.Error()
		}
		if got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
	_, err := Choose(list(), "us")
	if got := hint.Of(err); got != "regions with servers at present: se nl" {
		t.Errorf("hint %q", got)
	}
}

func TestChoosesAllEqually(t *testing.T) {
	first := map[string]int{}
	for range 3000 {
		s, err := Choose(list(), "")
		if err != nil {
			t.Fatal(err)
		}
		first[s[0].Name]++
	}
	for _, name := range []string{"se-1", "se-3", "nl-1"} {
		if n := first[name]; n < 800 || n > 1200 {
			t.Errorf("%s was first %d times of 3000, want about 1000", name, n)
		}
	}
	if first["se-2"] != 0 {
		t.Error("a draining server was chosen")
	}
}

func TestBackoff(t *testing.T) {
	var b backoff
	most := time.Duration(0)
	for i := range 20 {
		d := b.next()
		if d < backoffFirst/2 || d > backoffMost {
			t.Errorf("wait %d is %s", i, d)
		}
		most = max(most, d)
	}
	if most < backoffMost/2 {
		t.Errorf("it never grows beyond %s", most)
	}
}

func granted() wire.Session {
	key, err := device.NewPrivateKey()
	if err != nil {
		panic(err)
	}
	return wire.Session{
		Address: netip.MustParsePrefix("10.64.1.7/32"), DNS: netip.MustParseAddr("10.64.1.1"), ServerKey: key.Public().Base64(),
		Endpoint: netip.MustParseAddrPort("10.77.0.11:51820"), PresharedKey: device.NewPresharedKey().Base64(), KeepaliveSeconds: 25,
		Notice: netip.MustParseAddrPort("10.64.1.1:7444"), MTU: 1420,
	}
}

func TestCheckSession(t *testing.T) {
	if _, err := check(granted()); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*wire.Session){
		"address \"198": func(s *wire.Session) { s.Address = netip.MustParsePrefix("198.51.100.10/32") }, // somebody's own
		"address \"127": func(s *wire.Session) { s.Address = netip.MustParsePrefix("127.0.0.1/32") },
		"dns \"192": func(s *wire.Session) {
			s.DNS = netip.MustParseAddr("192.0.2.1")
			s.Notice = netip.AddrPortFrom(s.DNS, 7444)
		},
		"dns \"10.77": func(s *wire.Session) {
			s.DNS = netip.MustParseAddr("10.77.0.1")
			s.Notice = netip.AddrPortFrom(s.DNS, 7444)
		},
		"address":       func(s *wire.Session) { s.Address = netip.MustParsePrefix("10.64.1.0/24") },
		"dns":           func(s *wire.Session) { s.DNS = netip.Addr{} },
		"server_key":    func(s *wire.Session) { s.ServerKey = device.Key{}.Base64() },
		"endpoint":      func(s *wire.Session) { s.Endpoint = netip.AddrPort{} },
		"preshared_key": func(s *wire.Session) { s.PresharedKey = device.Key{}.Base64() },
		"keepalive":     func(s *wire.Session) { s.KeepaliveSeconds = -1 },
		"notice":        func(s *wire.Session) { s.Notice = netip.MustParseAddrPort("192.0.2.1:7444") },
		"mtu":           func(s *wire.Session) { s.MTU = 576 },
	} {
		s := granted()
		change(&s)
		if _, err := check(s); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestWGQuick(t *testing.T) {
	g, err := check(granted())
	if err != nil {
		t.Fatal(err)
	}
	g.endpoint = netip.MustParseAddrPort("10.77.0.11:51820")
	r := Registered{Server: "se-1", grant: g}
	for _, c := range []struct {
		name, want string
		allowed    []netip.Prefix
		dns        bool
	}{
		{"everything", "AllowedIPs = 0.0.0.0/0, ::/0\n", nil, true},
		{"a route, and the resolver", "AllowedIPs = 203.0.113.0/24, 10.64.1.1/32\n", []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}, true},
		{"a route alone", "AllowedIPs = 203.0.113.0/24\n", []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}, false},
	} {
		file := string(r.WGQuick(c.allowed, c.dns))
		if !strings.Contains(file, c.want) || strings.Contains(file, "DNS = 10.64.1.1\n") != c.dns {
			t.Errorf("%s: got\n%s", c.name, file)
		}
	}
}

func TestResolver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	read := func() string {
		t.Helper()
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	dns := netip.MustParseAddr("10.64.1.1")
	write("old\n")
	killed := resolver{path: path}
	if err := killed.point(dns); err != nil {
		t.Fatal(err)
	}
	r := resolver{path: path} // the next client, after the first was killed
	for range 2 {
		if err := r.point(dns); err != nil {
			t.Fatal(err)
		}
	}
	if got := read(); !strings.HasSuffix(got, "\nnameserver 10.64.1.1\n") {
		t.Errorf("got %q", got)
	}
	if err := r.restore(); err != nil {
		t.Fatal(err)
	}
	if got := read(); got != "old\n" {
		t.Errorf("put back %q, want the text before the killed client", got)
	}
	if _, err := os.Stat(r.backup()); !os.IsNotExist(err) {
		t.Errorf("the backup is still there: %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := (&resolver{path: path}).point(dns); err != nil { // of a client that was killed
		t.Fatal(err)
	}
	none := resolver{path: path}
	if err := none.point(dns); err != nil {
		t.Fatal(err)
	}
	if err := none.restore(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("there was none, and now there is one: %v", err)
	}
	off := resolver{}
	if err := off.point(dns); err != nil || off.restore() != nil {
		t.Error("without a path it does nothing")
	}
}

// TestInnerIsTheInventorysRule: a client, which links no inventory, holds servers to the networks that an inventory may give them.
func TestInnerIsTheInventorysRule(t *testing.T) {
	if widest != inventory.MinTunnelBits {
		t.Errorf("widest: got %d, want the inventory's %d", widest, inventory.MinTunnelBits)
	}
	for _, s := range []string{"10.64.1.0", "172.16.0.0", "192.168.7.0", "100.64.0.0", "100.128.0.0", "192.0.2.0", "127.0.0.0", "169.254.1.0", "224.0.0.0", "fd00::"} {
		a := netip.MustParseAddr(s)
		if got, want := inner(a), inventory.CheckTunnel(netip.PrefixFrom(a, 24)) == nil; got != want {
			t.Errorf("%s: got %v, the inventory says %v", a, got, want)
		}
	}
}

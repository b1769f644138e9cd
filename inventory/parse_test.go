package inventory

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"mayfly/internal/hint"
	"mayfly/internal/tomlfile"
)

func read(t testing.TB) string {
	t.Helper()
	data, err := os.ReadFile("testdata/fleet.toml")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func parsed(t testing.TB) Fleet {
	t.Helper()
	f, err := Parse("fleet.toml", []byte(read(t)))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestParse(t *testing.T) {
	f := parsed(t)
	if got, want := len(f.Servers), 3; got != want {
		t.Fatalf("servers: got %d, want %d", got, want)
	}
	s, ok := f.Server("nl-1")
	want := Server{
		Name: "nl-1", Rack: "nl-a", Role: RoleVPN, Address: netip.MustParsePrefix("10.77.0.13/24"), Capacity: 1000,
		Tunnel: netip.MustParsePrefix("10.64.3.0/24"), Power: Power{Driver: DriverQEMU, Tap: "mf-nl-1", MAC: "52:54:00:00:00:13"},
	}
	if !ok || !reflect.DeepEqual(s, want) {
		t.Errorf("nl-1: got %+v, %v, want %+v", s, ok, want)
	}
	if _, ok := f.Server("no"); ok {
		t.Error("server no: got one")
	}
	if r, ok := f.Region("se"); !ok || r.Floor != (Floor{Mbps: 1000}) {
		t.Errorf("region se: got %+v, %v", r, ok)
	}
	if _, ok := f.Region("no"); ok {
		t.Error("region no: got one")
	}
	for _, tt := range []struct {
		what      string
		got, want any
	}{
		{"region of se-2", f.RegionOf("se-2"), "se"},
		{"region of no", f.RegionOf("no"), ""},
		{"capacity of se", f.Capacity("se"), 2000},
		{"capacity of no", f.Capacity("no"), 0},
		{"name of se-1", f.FQDN("se-1"), "se-1.lab.internal"},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.what, tt.got, tt.want)
		}
	}
}

const hostKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILmuPo8wAvzfd4IoqljYGIPIeq7tC8CdADuyro7FYkRI"

// A fleet of bastions and hosts needs nothing else; beside servers that are rebuilt, hosts are in no plan's way.
func TestHosts(t *testing.T) {
	data, err := os.ReadFile("testdata/hosts.toml")
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	f, err := Parse("hosts.toml", data)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := f.Server("web-1"); !ok || !f.BastionsOnly() || len(f.Rebuilt()) != 0 || f.RegionOf("web-1") != "" {
		t.Errorf("got %+v", f)
	}
	if _, ok := f.RebuiltServer("web-1"); ok {
		t.Error("a host is rebuilt")
	}
	for _, tt := range []struct{ name, old, new, want string }{
		{"rack", `role = "host"`, "role = \"host\"\nrack = \"a\"", "which has no rack"},
		{"capacity", `role = "host"`, "role = \"host\"\ncapacity = 1", "which has no capacity"},
		{"tunnel", `role = "host"`, "role = \"host\"\ntunnel = \"10.64.1.0/24\"", "which has no tunnel"},
		{"power", `role = "host"`, "role = \"host\"\npower = { driver = \"qemu\" }", "which has no power"},
		{"no address", `address = "192.0.2.11/24"`, "", "no address"},
		{"host key of another type", `role = "host"`, "role = \"host\"\nhost_keys = [\"ssh-rsa AAAA\"]", "no ssh-ed25519"},
		{"host key with a comment", `role = "host"`, "role = \"host\"\nhost_keys = [\"" + hostKey + " root@web\"]", "no ssh-ed25519"},
		{"host key of two lines", `role = "host"`, "role = \"host\"\nhost_keys = [\"" + hostKey + "\\n*\"]", "no ssh-ed25519"},
		{"host key twice", `role = "host"`, "role = \"host\"\nhost_keys = [\"" + hostKey + "\", \"" + hostKey + "\"]", "twice"},
		{"too many host keys", `role = "host"`, "role = \"host\"\nhost_keys = [\"\", \"\", \"\", \"\", \"\"]", "at most 4"},
		{"network address", `192.0.2.11/24`, "192.0.2.0/24", "no host"},
		{"the bastion's address", `192.0.2.11/24`, "192.0.2.2/24", "bastion gate has too"},
		{"a server that is rebuilt", `role = "host"`, `role = "vpn"`, "management is empty"},
		{"half a controller", "[[bastion]]", "[controller]\nboot_port = 80\n[[bastion]]", "management is empty"},
		{"a gateway alone", "[[bastion]]", "[network]\ngateway = \"192.0.2.1\"\n[[bastion]]", "management is empty"},
	} {
		if _, err := Parse("hosts.toml", []byte(strings.Replace(text, tt.old, tt.new, 1))); err == nil || !strings.Contains(err.Error(), tt.want) || hint.Of(err) == "" {
			t.Errorf("%s: got %v, want %q and a hint", tt.name, err, tt.want)
		}
	}
	if _, err := Parse("f", []byte("name = \"a\"\ndomain = \"a\"\n")); err == nil {
		t.Error("a fleet without servers needs no controller")
	}

	keyed, err := Parse("hosts.toml", []byte(strings.Replace(text, `role = "host"`, "role = \"host\"\nhost_keys = [\""+hostKey+"\"]", 1)))
	if err != nil || len(keyed.Servers[0].HostKeys) != 1 {
		t.Errorf("a host with a key: %v", err)
	}
	rebuilt := parsed(t)
	rebuilt.Servers[0].HostKeys = []string{hostKey}
	if err := Check(rebuilt); err == nil || !strings.Contains(err.Error(), "has no host_keys") {
		t.Errorf("a rebuilt server with a host key: %v", err)
	}

	mixed := parsed(t)
	mixed.Servers = append([]Server{{Name: "web-1", Role: RoleHost, Address: netip.MustParsePrefix("192.0.2.11/32")}}, mixed.Servers...)
	if err := Check(mixed); err != nil || mixed.BastionsOnly() || len(mixed.Rebuilt()) != 3 {
		t.Errorf("mixed: %v, %d rebuilt", err, len(mixed.Rebuilt()))
	}
	mixed.Servers[0].Address = netip.MustParsePrefix("10.64.2.9/32")
	if err := Check(mixed); err == nil || !strings.HasPrefix(err.Error(), "server[2].tunnel: ") {
		t.Errorf("a host in a tunnel network: got %v", err)
	}
}

// TestRebuiltBastion is a bastion that is a server of the fleet.
func TestRebuiltBastion(t *testing.T) {
	f := parsed(t)
	static := len(f.Bastions)
	gate := f.Servers[0]
	gate.Name, gate.Role, gate.Capacity, gate.Tunnel = "gate-2", RoleBastion, 0, netip.Prefix{}
	gate.Address = netip.PrefixFrom(f.Servers[0].Address.Addr().Prev(), gate.Address.Bits())
	gate.Power.Tap, gate.Power.MAC = "tap-gate-2", "52:54:00:00:0f:02"
	before := f.Capacity(f.RegionOf(f.Servers[0].Name))
	f.Servers = append(f.Servers, gate)
	if err := Check(f); err != nil {
		t.Fatal(err)
	}
	all := f.AllBastions()
	if len(all) != static+1 || all[static] != (Bastion{Name: "gate-2", Address: gate.Address.Addr(), Port: PortSSH}) || len(f.Bastions) != static {
		t.Errorf("got bastions %v", all)
	}
	if _, ok := f.RebuiltServer("gate-2"); !ok || f.BastionsOnly() || f.Capacity(f.RegionOf("gate-2")) != before {
		t.Error("it is rebuilt, and no capacity")
	}
	for name, change := range map[string]func(*Server){
		"server[3].capacity: ":  func(s *Server) { s.Capacity = 1 },
		"server[3].tunnel: ":    func(s *Server) { s.Tunnel = netip.MustParsePrefix("10.64.9.0/24") },
		"server[3].rack: ":      func(s *Server) { s.Rack = "" },
		"server[3].power":       func(s *Server) { s.Power = Power{} },
		"server[3].host_keys: ": func(s *Server) { s.HostKeys = []string{"ssh-ed25519 AAAA"} },
	} {
		bad := gate
		change(&bad)
		f.Servers[len(f.Servers)-1] = bad
		if err := Check(f); err == nil || !strings.HasPrefix(err.Error(), name) || hint.Of(err) == "" {
			t.Errorf("got %v, want %q and a hint", err, name)
		}
	}
	f.Servers[len(f.Servers)-1] = gate
	f.Witnesses = []string{"http://10.77.0.1:9000"}
	if err := Check(f); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"10.77.0.1:9000", "https://10.77.0.1:9000", "http://witness:9000", "http://10.77.0.1", "http://10.77.0.1:9000/", "http://10.77.0.1:9000"} {
		f.Witnesses = append(f.Witnesses[:1:1], bad)
		if err := Check(f); err == nil || !strings.HasPrefix(err.Error(), "witnesses[1]: ") || hint.Of(err) == "" {
			t.Errorf("witness %q: got %v", bad, err)
		}
	}
	f.Witnesses = nil
	f.Network.Management = []netip.Prefix{netip.PrefixFrom(f.Controller.Address, 32)}
	if err := Check(f); err == nil || !strings.Contains(err.Error(), "no management network") {
		t.Errorf("outside of the management networks: got %v", err)
	}
}

// TestParseRefuses changes the good file in one place and asks for one error on the right line.
func TestParseRefuses(t *testing.T) {
	good := read(t)
	tests := []struct {
		name     string
		old, new string // the first occurrence is replaced
		line     string // the text of the line that must be named; the last one that begins so
		want     string
	}{
		{"no TOML", `name = "lab"`, `name = `, `name = `, ""},
		{"unknown key", `test = true`, `tset = true`, `tset`, `unknown key "tset"`},
		{"unknown key in a table", "port = 22", "prot = 22", "prot", `unknown key "bastion.prot"`},
		{"unknown table", "[network]", "[[netwrk]]\nx = 1\n[network]", "[[netwrk]]", "unknown key"},
		{"key in another case", "role = ", `Role = "x"` + "\nrole = ", "Role", `unknown key "Role"`},
		{"duplicate key", `domain = `, "name = \"x\"\ndomain = ", `name = "x"`, "already"},
		{"duplicate table", "[dns]", "[network]\n[dns]", "[network]", "already"},
		{"wrong type", "port = 22", `port = "22"`, "port = ", ""},
		{"port too big", "port = 22", `port = 65536`, "port = ", ""},
		{"negative port", "port = 22", `port = -1`, "port = ", ""},
		{"bad address", `gateway = "10.77.0.1"`, `gateway = "10.77.0"`, "gateway", ""},
		{"table for a list", "[[rack]]", "[rack]", "", ""},
		{"fleet name", `name = "lab"`, `name = "Lab"`, `name = "Lab"`, "DNS label"},
		{"no fleet name", `name = "lab"`, ``, ``, "DNS label"},
		{"domain", `"lab.internal"`, `"lab..internal"`, "domain", "DNS name"},
		{"management empty", `["10.77.0.0/24"]`, `[]`, "management", "management is empty"},
		{"management with host bits", `["10.77.0.0/24"]`, "[\n\"10.77.0.0/24\",\n\"10.78.0.1/24\"]", `"10.78.0.1/24"`, "host bits"},
		{"controller not in management", `["10.77.0.0/24"]`, `["10.99.0.0/24"]`, `address = "10.77.0.1"`, "no management network"},
		{"no gateway", `gateway = "10.77.0.1"`, ``, `[network]`, "no usable address"},
		{"gateway out of reach", `gateway = "10.77.0.1"`, `gateway = "10.78.0.1"`, `address = "10.77.0.11/24"`, "cannot be reached"},
		{"controller address", `address = "10.77.0.1"`, `address = "0.0.0.0"`, `address = "0.0.0.0"`, "no usable address"},
		{"port missing", `boot_port = 8080`, ``, `[controller]`, "boot_port is missing"},
		{"ports equal", `join_port = 8443`, `join_port = 8080`, `join_port`, "both 8080"},
		{"the page's port is taken", `join_port = 8443`, "join_port = 8443\npage_port = 8080", `page_port`, "both 8080"},
		{"the page's port is that of updates", `join_port = 8443`, "join_port = 8443\npage_port = 8450\nupdates_port = 8450", `page_port`, "both 8450"},
		{"root name", `"a.root.lab."`, `"a.root.lab"`, `name = "a.root.lab"`, "ends in a dot"},
		{"root address", `"203.0.113.53"`, `"::"`, `address = "::"`, "no usable address"},
		{"trust anchor that is configuration", `". IN DS 20326`, `". IN DS 20326\n  include: x`, `trust_anchors`, "no DS or DNSKEY"},
		{"anchors without root", "[[dns.root]]\nname = \"a.root.lab.\"\naddress = \"203.0.113.53\"", "", "trust_anchors", "without a root"},
		{"bastion name", `"gate"`, `"gate.lab"`, `name = "gate.lab"`, "DNS label"},
		{"bastion port", `port = 22`, `port = 0`, `port = 0`, "no port"},
		{"bastion address", `address = "10.77.0.2"`, `address = "224.0.0.1"`, `address = "224.0.0.1"`, "no usable address"},
		{"region name", `name = "nl"`, `name = "n_l"`, `name = "n_l"`, "DNS label"},
		{"region twice", `name = "nl"`, `name = "se"`, `name = "se"`, "there twice"},
		{"floor text", `floor = 1000`, `floor = "half"`, `floor`, ""},
		{"floor negative", `floor = 1000`, `floor = -1`, `floor`, ""},
		{"floor over 100 %", `floor = 1000`, `floor = "101%"`, `floor`, ""},
		{"floor above capacity", `floor = 1000`, `floor = 2001`, `floor`, "its servers have 2000 Mbit/s, the floor is 2001"},
		{"floor that forbids rotation", `floor = 1000`, `floor = 1001`, `floor`, `can never rebuild server "se-1": 2000 - 1000 = 1000 Mbit/s would be left, the floor is 1001`},
		{"share that forbids rotation", `floor = 1000`, `floor = "51%"`, `floor`, `2000 - 1000 = 1000 Mbit/s would be left, the floor is 1020 (51%)`},
		{"share of a single server", `name = "nl"`, "name = \"nl\"\nfloor = \"1%\"", `floor = "1%"`, `1000 - 1000 = 0 Mbit/s would be left, the floor is 10 (1%)`},
		{"floor of an empty region", "[[rack]]", "[[region]]\nname = \"fi\"\nfloor = 1\n[[rack]]", "floor = 1\n", "its servers have 0 Mbit/s"},
		{"rack name", `name = "nl-a"`, `name = ""`, `name = ""`, "DNS label"},
		{"rack twice", `name = "nl-a"`, `name = "se-a"`, `name = "se-a"`, "there twice"},
		{"rack in no region", `region = "nl"`, `region = "dk"`, `region = "dk"`, "does not exist"},
		{"server name", `name = "se-2"`, `name = "se.2"`, `name = "se.2"`, "DNS label"},
		{"server twice", `name = "se-2"`, `name = "se-1"`, `name = "se-1"`, `"se-1" is taken by another server`},
		{"server like a bastion", `name = "se-2"`, `name = "gate"`, `name = "gate"`, `taken by another bastion`},
		{"server like the controller", `name = "se-2"`, `name = "controller"`, `name = "controller"`, "taken by the controller"},
		{"server in no rack", `rack = "nl-a"`, `rack = "dk-a"`, `rack = "dk-a"`, "does not exist"},
		{"no rack", `rack = "nl-a"`, ``, `[[server]]`, "does not exist"},
		{"role", `role = "vpn"`, `role = "web"`, `role = "web"`, "unknown role"},
		{"no address", `address = "10.77.0.12/24"`, ``, ``, "no address"},
		{"address without network", `"10.77.0.12/24"`, `"10.77.0.12/32"`, `address = "10.77.0.12/32"`, "no host"},
		{"network address", `"10.77.0.12/24"`, `"10.77.0.0/24"`, `address = "10.77.0.0/24"`, "no host"},
		{"broadcast address", `"10.77.0.12/24"`, `"10.77.0.255/24"`, `address = "10.77.0.255/24"`, "no host"},
		{"address twice", `"10.77.0.12/24"`, `"10.77.0.11/24"`, `address = "10.77.0.11/24"`, "server se-1 has too"},
		{"address of the bastion", `"10.77.0.12/24"`, `"10.77.0.2/24"`, `address = "10.77.0.2/24"`, "bastion gate has too"},
		{"capacity 0", "capacity = 1000\ntunnel = \"10.64.2.0/24\"", "capacity = 0\ntunnel = \"10.64.2.0/24\"", `capacity = 0`, "capacity 0"},
		{"capacity negative", "capacity = 1000\ntunnel = \"10.64.2.0/24\"", "capacity = -5\ntunnel = \"10.64.2.0/24\"", `capacity = -5`, "capacity -5"},
		{"no tunnel", `tunnel = "10.64.2.0/24"`, ``, ``, "is no network"},
		{"tunnel with host bits", `"10.64.2.0/24"`, `"10.64.2.1/24"`, `tunnel = "10.64.2.1/24"`, "host bits"},
		{"tunnel too small", `"10.64.2.0/24"`, `"10.64.2.0/30"`, `tunnel = "10.64.2.0/30"`, "/16 to /29"},
		{"tunnel too large", `"10.64.2.0/24"`, `"10.128.0.0/15"`, `tunnel = "10.128.0.0/15"`, "/16 to /29"},
		{"tunnel of public addresses", `"10.64.2.0/24"`, `"192.0.2.0/24"`, `tunnel = "192.0.2.0/24"`, "private"},
		{"tunnel of IPv6", `"10.64.2.0/24"`, `"fd00::/64"`, `tunnel = "fd00::/64"`, "/16 to /29"},
		{"tunnels equal", `"10.64.2.0/24"`, `"10.64.1.0/24"`, `tunnel = "10.64.1.0/24"`, "overlapping"},
		{"tunnels overlap", `"10.64.1.0/24"`, `"10.64.0.0/16"`, `tunnel = "10.64.2.0/24"`, "overlapping"},
		{"tunnel over management", `"10.64.2.0/24"`, `"10.77.0.128/25"`, `tunnel = "10.77.0.128/25"`, "overlaps management"},
		{"driver", `driver = "qemu"`, `driver = "virsh"`, `power = { driver = "virsh"`, "unknown power driver"},
		{"no power", `power = { driver = "qemu", tap = "mf-se-2", mac = "52:54:00:00:00:12", memory_mib = 512 }`, ``, ``, "unknown power driver"},
		{"tap", `"mf-se-2"`, `"mf-se-2 -drive x"`, `power = { driver = "qemu", tap = "mf-se-2 `, "no interface name"},
		{"tap twice", `"mf-nl-1"`, `"mf-se-1"`, `tap = "mf-se-1"`, "both have tap"},
		{"MAC", `"52:54:00:00:00:13"`, `"52-54-00-00-00-13"`, `mac = `, "no unicast address"},
		{"MAC multicast", `"52:54:00:00:00:13"`, `"53:54:00:00:00:13"`, `mac = `, "no unicast address"},
		{"MAC twice", `"52:54:00:00:00:13"`, `"52:54:00:00:00:11"`, `mac = `, "both have MAC"},
		{"memory", `memory_mib = 512`, `memory_mib = 1`, `power = `, "1 MiB"},
	}
	for _, tt := range tests {
		if !strings.Contains(good, tt.old) {
			t.Fatalf("%s: the good file does not hold %q", tt.name, tt.old)
		}
		text := strings.Replace(good, tt.old, tt.new, 1)
		_, err := Parse("fleet.toml", []byte(text))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
			continue
		}
		if hint.Of(err) == "" {
			t.Errorf("%s: %v: no hint", tt.name, err)
		}
		var line int
		if n, serr := fmt.Sscanf(err.Error(), "fleet.toml:%d: ", &line); n != 1 || serr != nil {
			t.Errorf("%s: got %q, want it to begin with file and line", tt.name, err)
			continue
		}
		if got := strings.Split(text, "\n")[line-1] + "\n"; !strings.HasPrefix(got, tt.line) {
			t.Errorf("%s: %v: line %d is %q, want one that begins with %q", tt.name, err, line, got, tt.line)
		}
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: the error has more than one line: %q", tt.name, err)
		}
	}
	// Without test = true a root of one's own has to have its anchors.
	text := regexp.MustCompile(`(?m)^(test|trust_anchors) = .*$`).ReplaceAllString(good, "")
	if _, err := Parse("fleet.toml", []byte(text)); err == nil || !strings.Contains(err.Error(), "would not be validated") {
		t.Errorf("root without anchors: got %v", err)
	}
	if _, err := Parse("fleet.toml", make([]byte, tomlfile.MaxSize+1)); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("huge file: got %v", err)
	}
}

// Check refuses in JSON what Parse refuses in TOML, naming places by path.
func TestCheckNamesPath(t *testing.T) {
	f := parsed(t)
	f.Servers[2].Capacity = 0
	if err := Check(f); err == nil || !strings.HasPrefix(err.Error(), "server[2].capacity: ") {
		t.Errorf("got %v, want it to begin with the path", err)
	}
	f = parsed(t)
	f.Regions[0].Floor = Floor{Percent: 101}
	if err := Check(f); err == nil || !strings.HasPrefix(err.Error(), "region[0].floor: ") {
		t.Errorf("got %v, want it to begin with the path", err)
	}
	if err := Check(Fleet{}); err == nil {
		t.Error("zero fleet: got nil, want an error")
	}
}

func TestCheckIsBounded(t *testing.T) {
	f := parsed(t)
	f.Servers = nil
	for i := range MaxServers {
		a := netip.AddrFrom4([4]byte{172, 16 + byte(i>>16), byte(i >> 8), byte(i)})
		f.Servers = append(f.Servers, Server{
			Name: fmt.Sprintf("s-%d", i), Rack: "se-a", Role: RoleVPN, Capacity: 1000,
			Address: netip.PrefixFrom(a, 8), Tunnel: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24),
			Power: Power{Driver: DriverQEMU, Tap: fmt.Sprintf("t%d", i), MAC: fmt.Sprintf("52:54:00:00:%02x:%02x", i>>8, i&255)},
		})
	}
	f.Network.Gateway = netip.MustParseAddr("172.255.255.254")
	f.Network.Management = []netip.Prefix{netip.MustParsePrefix("192.168.0.0/24")}
	f.Controller.Address = netip.MustParseAddr("192.168.0.1")
	f.Bastions = nil
	f.Servers[0].Address = netip.MustParsePrefix("172.16.255.255/8")
	if err := Check(f); err != nil {
		t.Errorf("largest fleet: %v", err)
	}
	f.Servers = append(f.Servers, f.Servers[0])
	if err := Check(f); err == nil || !strings.Contains(err.Error(), "at most 10000") {
		t.Errorf("one server more: got %v", err)
	}
}

func TestFloor(t *testing.T) {
	for _, tt := range []struct {
		text  string
		floor Floor
		of    int // of 1999
		err   bool
	}{
		{"0", Floor{}, 0, false},
		{"1000", Floor{Mbps: 1000}, 1000, false},
		{"50%", Floor{Percent: 50}, 1000, false},
		{"1%", Floor{Percent: 1}, 20, false},
		{"100%", Floor{Percent: 100}, 1999, false},
		{"", Floor{}, 0, true}, {"%", Floor{}, 0, true}, {"0%", Floor{}, 0, true}, {"101%", Floor{}, 0, true}, {"-1", Floor{}, 0, true},
		{"+1", Floor{}, 0, true}, {"01", Floor{}, 0, true}, {"0x10", Floor{}, 0, true}, {"1.5", Floor{}, 0, true}, {"50 %", Floor{}, 0, true},
		{"100000001", Floor{}, 0, true}, {"99999999999999999999", Floor{}, 0, true},
	} {
		var f Floor
		err := f.UnmarshalText([]byte(tt.text))
		if (err != nil) != tt.err || f != tt.floor {
			t.Errorf("%q: got %+v, %v, want %+v", tt.text, f, err, tt.floor)
		}
		if tt.err {
			continue
		}
		if got := f.Of(1999); got != tt.of {
			t.Errorf("%q of 1999: got %d, want %d", tt.text, got, tt.of)
		}
		data, err := json.Marshal(f)
		if want := `"` + tt.text + `"`; err != nil || string(data) != want {
			t.Errorf("%q: JSON: got %s, %v, want %s", tt.text, data, err, want)
		}
	}
}

// The whole table of transitions, written a second time.
func TestLegal(t *testing.T) {
	states := []State{New, Serving, Draining, Wiping, Booting, Attesting, Baking, Quarantined, Standby}
	legal := map[string]bool{
		"new wiping": true, "serving draining": true, "draining wiping": true, "wiping booting": true, "booting attesting": true,
		"attesting baking": true, "baking serving": true, "quarantined wiping": true,
		"booting wiping": true, "attesting wiping": true, "baking wiping": true,
		"wiping quarantined": true, "booting quarantined": true, "attesting quarantined": true, "baking quarantined": true,
		"wiping standby": true, "standby wiping": true,
	}
	for _, from := range append(states, "", "other") {
		for _, to := range append(states, "", "other") {
			if got, want := Legal(from, to), legal[string(from)+" "+string(to)]; got != want {
				t.Errorf("%s → %s: got %v, want %v", from, to, got, want)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(read(f)))
	if data, err := os.ReadFile("testdata/hosts.toml"); err == nil {
		f.Add(data)
	}
	f.Add([]byte(put(f, withDomains(f), "switch = \"sw-1\"\nbmc_network = \"oob-1\"\nmirror = \"http://10.77.0.6:8080/\"\nspare = true")))
	f.Add([]byte(strings.Replace(put(f, withDomains(f), "ring = \"internal\""), "floor = 1000", "", 1)))
	f.Add([]byte("name = 1\n[[server]]\n[server.power]\n"))
	f.Add([]byte("server = [{name = \"a\", power = {driver = \"qemu\"}}, 3]\n"))
	f.Add([]byte("[[a.b]]\n[a.b.c]\n[[a.b.d]]\nx.y.z = [[1],[{q=1}]]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		fleet, err := Parse("f", data)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "f:") {
				t.Errorf("error without the file's name: %v", err)
			}
			return
		}
		text, err := json.Marshal(fleet)
		if err != nil {
			t.Fatal(err)
		}
		var again Fleet
		if err := json.Unmarshal(text, &again); err != nil {
			t.Fatal(err)
		}
		if err := Check(again); err != nil {
			t.Errorf("good in TOML and not in JSON: %v", err)
		}
		if second, err := json.Marshal(again); err != nil || string(second) != string(text) {
			t.Errorf("JSON does not round-trip: %s, then %s, %v", text, second, err)
		}
	})
}

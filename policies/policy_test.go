package policies

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/hint"
	"mayfly/inventory"
)

var now = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)

// key is a security key's public key without a private half.
func key(n byte) string {
	return keyOf(skEd25519, ssh.Marshal(struct {
		Type string
		Key  []byte
		App  string
	}{skEd25519, slices.Repeat([]byte{n}, 32), "ssh:"}))
}

func softwareKey(n byte) string {
	return keyOf(ssh.KeyAlgoED25519, ssh.Marshal(struct {
		Type string
		Key  []byte
	}{ssh.KeyAlgoED25519, slices.Repeat([]byte{n}, 32)}))
}

func keyOf(kind string, blob []byte) string {
	return kind + " " + base64.StdEncoding.EncodeToString(blob)
}

func read(t testing.TB) string {
	t.Helper()
	data, err := os.ReadFile("testdata/policy.toml")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func parsed(t testing.TB) Policy {
	t.Helper()
	p, err := Parse("policy.toml", []byte(read(t)), lab(t))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func lab(t testing.TB) inventory.Fleet {
	t.Helper()
	data, err := os.ReadFile("../inventory/testdata/fleet.toml")
	if err != nil {
		t.Fatal(err)
	}
	f, err := inventory.Parse("fleet.toml", data)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestParse(t *testing.T) {
	p := parsed(t)
	if err := Check(p, lab(t)); err != nil {
		t.Fatal(err)
	}
	if p.Rotation.MaxAge.Std() != 24*time.Hour || p.SSH.HandshakeDeadline.Std() != 20*time.Second || len(p.Engineers) != 2 || p.Engineers[0].Keys[1].Public != key(2) {
		t.Errorf("got %+v", p)
	}
	data, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"max_age":"24h"`, `"bake":"1m"`, `"handshake_deadline":"20s"`, `"idle_timeout":"0s"`, `"expires":"2030-02-01T00:00:00Z"`} {
		if !strings.Contains(string(data), want) {
			t.Errorf("JSON: got %s, want it to hold %s", data, want)
		}
	}
}

// TestParseRefuses changes the good file in one place and asks for one error on the right line.
func TestParseRefuses(t *testing.T) {
	good, fleet := read(t), lab(t)
	tests := []struct {
		name, old, new string // the first occurrence is replaced
		line           string // beginning of the line that must be named
		want           string
	}{
		{"unknown key", "version = 7", "version = 7\nversoin = 8", "versoin", "unknown key"},
		{"version 0", "version = 7", "version = 0", "version", "version is missing or 0"},
		{"version negative", "version = 7", "version = -1", "version", ""},
		{"no version", "version = 7", "", "", "version is missing"},
		{"no expiry", "expires = 2030-02-01T00:00:00Z", "", "", "expires is missing"},
		{"expiry as text", "expires = 2030-02-01T00:00:00Z", `expires = "soon"`, "expires", ""},
		{"no level", `level = "pq-preferred"`, "", "[ssh]", `unknown SSH level ""`},
		{"unknown level", `"pq-preferred"`, `"legacy"`, "level", `unknown SSH level "legacy"`},
		{"empty allow list", `["198.51.100.0/26", "2001:db8:1::/48"]`, `[]`, "allow", "ssh.allow is empty"},
		{"no allow list", `allow = ["198.51.100.0/26", "2001:db8:1::/48"]`, ``, "[ssh]", "ssh.allow is empty"},
		{"host bits", `"198.51.100.0/26"`, `"198.51.100.1/26"`, "allow", "host bits"},
		{"everybody", `"198.51.100.0/26"`, `"0.0.0.0/0"`, "allow", "every address"},
		{"everybody on IPv6", `"198.51.100.0/26"`, `"::/0"`, "allow", "every address"},
		{"network twice", `"2001:db8:1::/48"`, `"198.51.100.0/26"`, "allow", "there twice"},
		{"IPv4 in IPv6", `"198.51.100.0/26"`, `"::ffff:198.51.100.0/122"`, "allow", ""},
		{"no network", `"198.51.100.0/26"`, `"198.51.100.0"`, "allow", ""},
		{"duration as a number", `handshake_deadline = "20s"`, `handshake_deadline = 20`, "handshake_deadline", "must be a string"},
		{"age as a number", `max_age = "24h"`, `max_age = 86400`, "max_age", "must be a string"},
		{"duration without unit", `"20s"`, `"20"`, "handshake_deadline", ""},
		{"duration negative", `"20s"`, `"-20s"`, "handshake_deadline", ""},
		{"duration too fine", `"20s"`, `"20ms"`, "handshake_deadline", ""},
		{"deadline too long", `"20s"`, `"20h"`, "handshake_deadline", "at most 2m"},
		{"limit negative", "max_sessions = 10", "max_sessions = -1", "max_sessions", "max_sessions is -1"},
		{"limit too high", "max_sessions = 10", "max_sessions = 1000000", "max_sessions", "max_sessions is 1000000"},
		{"root word", `["softkey"]`, `["Soft key"]`, "test_roots", "no lower-case word"},
		{"root twice", `["softkey"]`, `["softkey", "softkey"]`, "test_roots", "there twice"},
		{"root as engineer", `name = "anna"`, `name = "root"`, `name = "root"`, "the system's"},
		{"the image's account as engineer", `name = "anna"`, `name = "mayfly-tunnel"`, `name = "mayfly-tunnel"`, "the system's"},
		{"service account as engineer", `name = "anna"`, `name = "sshd"`, `name = "sshd"`, "the system's"},
		{"engineer name", `name = "anna"`, `name = "anna@10.0.0.1"`, `name = "anna@`, "no Unix account name"},
		{"engineer name like an option", `name = "anna"`, `name = "-anna"`, `name = "-anna`, "no Unix account name"},
		{"engineer twice", `name = "bert"`, `name = "anna"`, `name = "anna"`, "there twice"},
		{"too many keys", "[[engineer.key]]\npublic = \"" + key(3) + "\"\nevidence = \"test:softkey\"\n", strings.Repeat("[[engineer.key]]\npublic = \""+key(3)+"\"\nevidence = \"test:softkey\"\n", 17), "[[engineer]]", "17 keys"},
		{"engineer's list", `"198.51.100.16/28"`, `"198.51.100.17/28"`, "allow", "host bits"},
		{"software key", key(3), softwareKey(3), "public", "ssh-ed25519, which any software can hold"},
		{"no key", key(3), "hello", "public", "no public key"},
		{"key with a comment", key(3), key(3) + " bert", "public", "not in the form"},
		{"key with options", key(3), "no-touch-required " + key(3), "public", "not in the form"},
		{"key twice", key(2), key(1), "public", "there twice"},
		{"key of two people", key(3), key(1), "public", `a key of "anna"`},
		{"no evidence", `evidence = "test:softkey"`, ``, "[[engineer.key]]", `evidence ""`},
		{"unlisted root", `evidence = "test:softkey"`, `evidence = "test:other"`, "evidence", `evidence "test:other"`},
		{"evidence without root", `evidence = "test:softkey"`, `evidence = "test:"`, "evidence", `evidence "test:"`},
		{"other evidence", `evidence = "test:softkey"`, `evidence = "yubikey"`, "evidence", `evidence "yubikey"`},
		{"a card's evidence of a security key", `evidence = "test:softkey"`, `evidence = "piv"`, "public", "which no PIV card has"},
		{"a challenge beside a test root", `evidence = "test:softkey"`, "evidence = \"test:softkey\"\nchallenge = \"x\"", "[[engineer.key]]", "beside it"},
		{"no roots", `test_roots = ["softkey"]`, ``, "evidence", "not accepted"},
		{"grant to nobody", `engineers = ["anna"]`, `engineers = []`, "engineers", "has no engineers"},
		{"grant of nothing", `servers = ["se-1", "se-2"]`, ``, "[[grant]]", "has no servers"},
		{"grant without ports", `ports = [22]`, `ports = []`, "ports", "has no ports"},
		{"grant to a stranger", `engineers = ["anna"]`, `engineers = ["eve"]`, "engineers", `engineer "eve", who does not exist`},
		{"grant twice to one", `engineers = ["anna"]`, `engineers = ["anna", "anna"]`, "engineers", "twice"},
		{"grant of an empty name", `"se-1", "se-2"`, `""`, "servers", "empty server"},
		{"server twice", `"se-1", "se-2"`, `"se-1", "se-1"`, "servers", "twice"},
		{"unknown server", `"se-1", "se-2"`, `"se-1", "se-9"`, "servers", `server "se-9" does not exist`},
		{"unknown region", `"region:nl"`, `"region:dk"`, "servers", `region "dk" does not exist`},
		{"region without its word", `"region:nl"`, `"nl"`, "servers", `server "nl" does not exist`},
		{"port 0", `ports = [22]`, `ports = [0]`, "ports", "port 0"},
		{"port twice", `ports = [22]`, `ports = [22, 22]`, "ports", "twice"},
		{"no age", `max_age = "24h"`, ``, "[rotation]", "max_age is 0s"},
		{"age too short", `max_age = "24h"`, `max_age = "1m"`, "max_age", "max_age is 1m"},
		{"age too long", `max_age = "24h"`, `max_age = "10000h"`, "max_age", "max_age is 10000h"},
		{"age past a release's longest", `max_age = "24h"`, `max_age = "169h"`, "max_age", "max_age is 169h"},
		{"drain too long", `drain_limit = "10m"`, `drain_limit = "11m"`, "drain_limit", "drain_limit is 11m"},
		{"boot past a ticket's longest", `boot_limit = "5m"`, `boot_limit = "31m"`, "boot_limit", "boot_limit is 31m"},
		{"no time to boot", `boot_limit = "5m"`, ``, "[rotation]", "boot_limit is 0s"},
		{"age below a rebuild", `max_age = "24h"`, `max_age = "16m"`, "max_age", "drain_limit 10m + boot_limit 5m + bake 1m"},
		{"none at once", `max_parallel = 1`, ``, "[rotation]", "max_parallel is 0"},
		{"retries", `retries = 1`, `retries = 100`, "retries", "retries is 100"},
	}
	for _, tt := range tests {
		if !strings.Contains(good, tt.old) {
			t.Fatalf("%s: the good file does not hold %q", tt.name, tt.old)
		}
		text := strings.Replace(good, tt.old, tt.new, 1)
		_, err := Parse("policy.toml", []byte(text), fleet)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
			continue
		}
		if hint.Of(err) == "" {
			t.Errorf("%s: %v: no hint", tt.name, err)
		}
		var line int
		if n, serr := fmt.Sscanf(err.Error(), "policy.toml:%d: ", &line); n != 1 || serr != nil {
			t.Errorf("%s: got %q, want it to begin with file and line", tt.name, err)
			continue
		}
		if got := strings.Split(text, "\n")[line-1]; !strings.HasPrefix(got, tt.line) {
			t.Errorf("%s: %v: line %d is %q, want one that begins with %q", tt.name, err, line, got, tt.line)
		}
	}

	// Test roots count in a test fleet only.
	fleet.Test = false
	if _, err := Parse("policy.toml", []byte(good), fleet); err == nil || !strings.Contains(err.Error(), "only in a fleet with test = true") {
		t.Errorf("test roots in a real fleet: got %v", err)
	}
	if err := Check(Policy{}, fleet); err == nil {
		t.Error("zero policy: got nil, want an error")
	}
}

func TestAdmit(t *testing.T) {
	p := parsed(t)
	for _, tt := range []struct {
		name string
		addr string
		now  time.Time
		want Reason
	}{
		{"listed", "198.51.100.10", now, Allowed},
		{"first of the network", "198.51.100.0", now, Allowed},
		{"last of the network", "198.51.100.63", now, Allowed},
		{"one after", "198.51.100.64", now, AddressNotListed},
		{"IPv4 in IPv6", "::ffff:198.51.100.10", now, Allowed},
		{"IPv6", "2001:db8:1:2::3", now, Allowed},
		{"IPv6 with a zone", "2001:db8:1:2::3%eth0", now, Allowed},
		{"another IPv6", "2001:db8:2::3", now, AddressNotListed},
		{"loopback", "127.0.0.1", now, AddressNotListed},
		{"none", "", now, AddressNotListed},
		{"last moment", "198.51.100.10", p.Expires.Add(-1), Allowed},
		{"expired", "198.51.100.10", p.Expires, PolicyExpired},
		{"expired, not listed", "127.0.0.1", p.Expires, PolicyExpired},
	} {
		var a netip.Addr
		if tt.addr != "" {
			a = netip.MustParseAddr(tt.addr)
		}
		check(t, tt.name, p.Admit(a, tt.now), tt.want)
	}
	check(t, "zero policy", Policy{}.Admit(netip.MustParseAddr("198.51.100.10"), now), PolicyExpired)
	check(t, "no list", Policy{Expires: p.Expires}.Admit(netip.MustParseAddr("198.51.100.10"), now), AddressNotListed)
}

// check compares a verdict with the reason it must have.
func check(t *testing.T, name string, got Verdict, want Reason) {
	t.Helper()
	if got.Reason != want || got.Allow != (want == Allowed) || got.Detail == "" {
		t.Errorf("%s: got %+v, want %s", name, got, want)
	}
}

func TestDecideLogin(t *testing.T) {
	p := parsed(t)
	listed, narrow := netip.MustParseAddr("198.51.100.10"), netip.MustParseAddr("198.51.100.17")
	noRoots := p
	noRoots.Hardware.TestRoots = nil
	for _, tt := range []struct {
		name   string
		policy Policy
		login  Login
		want   Reason
	}{
		{"anna", p, Login{Source: listed, User: "anna", Key: key(1)}, Allowed},
		{"anna's second key", p, Login{Source: listed, User: "anna", Key: key(2)}, Allowed},
		{"bert from his network", p, Login{Source: narrow, User: "bert", Key: key(3)}, Allowed},
		{"bert from elsewhere", p, Login{Source: listed, User: "bert", Key: key(3)}, AddressNotListed},
		{"address", p, Login{Source: netip.MustParseAddr("198.51.100.66"), User: "anna", Key: key(1)}, AddressNotListed},
		{"no address", p, Login{User: "anna", Key: key(1)}, AddressNotListed},
		{"root", p, Login{Source: listed, User: "root", Key: key(1)}, UserRoot},
		{"Root", p, Login{Source: listed, User: "Root", Key: key(1)}, UserRoot},
		{"root and a space", p, Login{Source: listed, User: "root ", Key: key(1)}, UserRoot},
		{"nobody known", p, Login{Source: listed, User: "eve", Key: key(1)}, UserUnknown},
		{"no name", p, Login{Source: listed, User: "", Key: key(1)}, UserUnknown},
		{"another case", p, Login{Source: listed, User: "Anna", Key: key(1)}, UserUnknown},
		{"software key", p, Login{Source: listed, User: "anna", Key: softwareKey(1)}, KeyNotHardware},
		{"certificate", p, Login{Source: listed, User: "anna", Key: "sk-ssh-ed25519-cert-v01@openssh.com AAAA"}, KeyNotHardware},
		{"no key", p, Login{Source: listed, User: "anna", Key: ""}, KeyNotHardware},
		{"unknown key", p, Login{Source: listed, User: "anna", Key: key(9)}, KeyUnknown},
		{"bert's key", p, Login{Source: listed, User: "anna", Key: key(3)}, KeyUnknown},
		{"key with a comment", p, Login{Source: listed, User: "anna", Key: key(1) + " x"}, KeyUnknown},
		{"evidence withdrawn", noRoots, Login{Source: listed, User: "anna", Key: key(1)}, KeyNoEvidence},
	} {
		check(t, tt.name, tt.policy.DecideLogin(tt.login, Statements{}, now), tt.want)
	}
	check(t, "expired", p.DecideLogin(Login{Source: listed, User: "anna", Key: key(1)}, Statements{}, p.Expires), PolicyExpired)
	for user, want := range map[string]Kind{"anna": KindEngineer, "bert": KindEngineer, "eve": "", "root": ""} {
		if v := p.DecideLogin(Login{Source: listed, User: user, Key: key(9)}, Statements{}, now); v.Kind != want {
			t.Errorf("kind of %s: got %q, want %q", user, v.Kind, want)
		}
	}
	// A policy that was never checked denies an engineer without a name.
	bad := p
	bad.Engineers = append([]Engineer{{Keys: p.Engineers[0].Keys}}, p.Engineers...)
	check(t, "nameless engineer", bad.DecideLogin(Login{Source: listed, User: "", Key: key(1)}, Statements{}, now), UserUnknown)
	bad.Engineers = []Engineer{{Name: "root", Keys: p.Engineers[0].Keys}}
	check(t, "engineer root", bad.DecideLogin(Login{Source: listed, User: "root", Key: key(1)}, Statements{}, now), UserRoot)
}

// Whom a server expects is whom the bastion lets go there.
func TestGrantedIsDecideTarget(t *testing.T) {
	p, f := parsed(t), lab(t)
	p.Grants = append(p.Grants, Grant{Engineers: []string{"bert"}, Servers: []string{"*"}, Ports: []uint16{80}})
	for _, at := range []time.Time{now, p.Expires} {
		for _, server := range []string{"se-1", "se-2", "nl-1", "se-9", "*", ""} {
			for _, port := range []uint16{0, 22, 80, 443} {
				var want, got []string
				for name, k := range map[string]byte{"anna": 1, "bert": 3} {
					if p.DecideTarget(Login{Source: netip.MustParseAddr("198.51.100.17"), User: name, Key: key(k)}, Target{server, port}, f, Statements{}, at).Allow {
						want = append(want, name)
					}
				}
				for _, e := range p.Granted(Target{server, port}, f, at) {
					got = append(got, e.Name)
				}
				slices.Sort(want)
				if !slices.Equal(got, want) {
					t.Errorf("%s:%d at %s: got %q, want %q", server, port, at, got, want)
				}
			}
		}
	}
}

func TestDecideTarget(t *testing.T) {
	p, f := parsed(t), lab(t)
	anna := Login{Source: netip.MustParseAddr("198.51.100.17"), User: "anna", Key: key(1)}
	bert := Login{Source: netip.MustParseAddr("198.51.100.17"), User: "bert", Key: key(3)}
	everything := p
	everything.Grants = []Grant{{Engineers: []string{"anna"}, Servers: []string{"*"}, Ports: []uint16{22, 0}}}
	nothing := p
	nothing.Grants = nil
	for _, tt := range []struct {
		name   string
		policy Policy
		login  Login
		target Target
		want   Reason
	}{
		{"named", p, anna, Target{"se-1", 22}, Allowed},
		{"second grant, by region", p, anna, Target{"nl-1", 443}, Allowed},
		{"by region", p, bert, Target{"nl-1", 22}, Allowed},
		{"not granted", p, bert, Target{"se-1", 22}, TargetNotGranted},
		{"port", p, anna, Target{"se-1", 443}, PortNotGranted},
		{"port 0", p, anna, Target{"se-1", 0}, PortNotGranted},
		{"unknown", p, anna, Target{"se-9", 22}, TargetUnknown},
		{"an address", p, anna, Target{"10.77.0.11", 22}, TargetUnknown},
		{"a region", p, anna, Target{"region:nl", 22}, TargetUnknown},
		{"the star", everything, anna, Target{"*", 22}, TargetUnknown},
		{"full name", p, anna, Target{"se-1.lab.internal", 22}, TargetUnknown},
		{"no name", p, anna, Target{"", 22}, TargetUnknown},
		{"everything", everything, anna, Target{"se-2", 22}, Allowed},
		{"everything but port 0", everything, anna, Target{"se-2", 0}, PortNotGranted},
		{"everything, to another", everything, bert, Target{"se-2", 22}, TargetNotGranted},
		{"no grants", nothing, anna, Target{"se-1", 22}, TargetNotGranted},
		{"login first", p, Login{Source: anna.Source, User: "anna", Key: softwareKey(1)}, Target{"se-1", 22}, KeyNotHardware},
	} {
		check(t, tt.name, tt.policy.DecideTarget(tt.login, tt.target, f, Statements{}, now), tt.want)
	}
	check(t, "expired", p.DecideTarget(anna, Target{"se-1", 22}, f, Statements{}, p.Expires), PolicyExpired)
	check(t, "empty inventory", p.DecideTarget(anna, Target{"se-1", 22}, inventory.Fleet{}, Statements{}, now), TargetUnknown)
	// A server whose rack has no region is in no "region:".
	lost := lab(t)
	lost.Racks = nil
	odd := p
	odd.Grants = []Grant{{Engineers: []string{"anna"}, Servers: []string{"region:"}, Ports: []uint16{22}}}
	check(t, "empty region", odd.DecideTarget(anna, Target{"se-1", 22}, lost, Statements{}, now), TargetNotGranted)
	if (Verdict{}).Allow {
		t.Error("the zero verdict allows")
	}
}

// A fleet that rebuilds nothing needs no rules for it; half of the rules are refused all the same.
func TestPolicyOfHosts(t *testing.T) {
	data, err := os.ReadFile("../inventory/testdata/hosts.toml")
	if err != nil {
		t.Fatal(err)
	}
	f, err := inventory.Parse("hosts.toml", data)
	if err != nil {
		t.Fatal(err)
	}
	f.Test = true
	p := parsed(t)
	p.Grants = []Grant{{Engineers: []string{"anna"}, Servers: []string{"web-1"}, Ports: []uint16{22}}}
	p.Rotation = Rotation{}
	if err := Check(p, f); err != nil {
		t.Error(err)
	}
	anna := Login{Source: netip.MustParseAddr("198.51.100.17"), User: "anna", Key: key(1)}
	check(t, "a host", p.DecideTarget(anna, Target{"web-1", 22}, f, Statements{}, now), Allowed)
	check(t, "another host", p.DecideTarget(anna, Target{"db-1", 22}, f, Statements{}, now), TargetNotGranted)
	p.Rotation = Rotation{Retries: 1}
	if err := Check(p, f); err == nil || !strings.Contains(err.Error(), "max_age") {
		t.Errorf("half of the rules: got %v", err)
	}
	p.Rotation, p.Grants = Rotation{}, nil
	if err := Check(p, lab(t)); err == nil || !strings.Contains(err.Error(), "max_age") {
		t.Errorf("no rules, and servers that are rebuilt: got %v", err)
	}
}

func TestLimits(t *testing.T) {
	p := parsed(t)
	l := p.Limits()
	if l.MaxSessions != 10 || l.HandshakeDeadline != 20*time.Second || l.MaxPerSource != defaults.MaxPerSource {
		t.Errorf("got %+v", l)
	}
	if got := (Policy{}).Limits(); got != defaults {
		t.Errorf("zero policy: got %+v, want %+v", got, defaults)
	}
	wild := Policy{SSH: SSH{MaxSessions: 1 << 40, MaxChannels: -3, IdleTimeout: Duration(1000 * time.Hour)}}
	if got := wild.Limits(); got != defaults {
		t.Errorf("out of bounds: got %+v, want %+v", got, defaults)
	}
}

func TestAlgorithms(t *testing.T) {
	for _, l := range []Level{PQPreferred, PQOnly} {
		a, err := l.Algorithms()
		if err != nil {
			t.Fatal(err)
		}
		for _, list := range [][]string{a.KeyExchanges, a.Ciphers, a.MACs, a.HostKeys, a.PublicKeys} {
			if len(list) == 0 {
				t.Errorf("%s: an empty list, which means the library's defaults: %+v", l, a)
			}
		}
		if a.KeyExchanges[0] != "mlkem768x25519-sha256" || l == PQOnly && len(a.KeyExchanges) != 1 {
			t.Errorf("%s: key exchanges: got %v", l, a.KeyExchanges)
		}
		for _, c := range a.Ciphers {
			if !strings.Contains(c, "-gcm@") {
				t.Errorf("%s: cipher %s is not AES-GCM", l, c)
			}
		}
		for _, k := range a.PublicKeys {
			if !slices.Contains(securityKeyTypes, k) && !slices.Contains(cardKeyTypes, k) {
				t.Errorf("%s: %s is no type of hardware's keys", l, k)
			}
		}
	}
	for _, l := range []Level{"", "legacy", "PQ-only"} {
		if a, err := l.Algorithms(); err == nil {
			t.Errorf("%q: got %+v, want an error", l, a)
		}
	}
}

func TestDuration(t *testing.T) {
	for _, tt := range []struct {
		text, again string
		want        time.Duration
	}{
		{"0s", "0s", 0}, {"90s", "1m30s", 90 * time.Second}, {"24h", "24h", 24 * time.Hour}, {"1h30m", "1h30m", 90 * time.Minute},
		{"1h0m5s", "1h0m5s", time.Hour + 5*time.Second}, {"10m", "10m", 10 * time.Minute}, {"20h10m", "20h10m", 20*time.Hour + 10*time.Minute},
	} {
		var d Duration
		if err := d.UnmarshalText([]byte(tt.text)); err != nil || d.Std() != tt.want || d.String() != tt.again {
			t.Errorf("%q: got %v %q, %v, want %v %q", tt.text, d.Std(), d, err, tt.want, tt.again)
		}
	}
	for _, text := range []string{"", "1", "x", "-1s", "1ms", "1.5s", "1000000h1s ", "9999999999h"} {
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err == nil || d != 0 {
			t.Errorf("%q: got %v, %v, want an error", text, d, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(read(f)))
	every, fleet := withRules(f)
	f.Add([]byte(every))
	f.Add([]byte("version = 1\nexpires = 2030-01-01\n[ssh]\nlevel = \"pq-only\"\nallow = [\"10.0.0.0/8\"]\n[rotation]\nmax_age = \"1h\"\nboot_limit = \"10s\"\nmax_parallel = 1\n"))
	f.Add([]byte("engineer = [{name = \"a\", key = [{public = 3}]}]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, doc, err := decode("f", data)
		if err == nil { // as Parse does, in whatever fleet
			if err = doc.Place(p.check()); err == nil && !reflect.ValueOf(p.Rotation).IsZero() {
				err = doc.Place(p.checkRotation(fleet))
			}
		}
		if err != nil {
			if !strings.HasPrefix(err.Error(), "f:") {
				t.Errorf("error without the file's name: %v", err)
			}
			return
		}
		text, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		var again Policy
		if err := json.Unmarshal(text, &again); err != nil {
			t.Fatal(err)
		}
		if err := again.check(); err != nil || !reflect.ValueOf(again.Rotation).IsZero() && again.checkRotation(fleet) != nil {
			t.Errorf("good in TOML and not in JSON: %v", err)
		}
		if second, err := json.Marshal(again); err != nil || string(second) != string(text) {
			t.Errorf("JSON does not round-trip: %s, then %s, %v", text, second, err)
		}
		// Whatever the policy says, these are refused.
		for _, l := range []Login{{}, {User: "root"}, {Source: netip.MustParseAddr("10.1.1.1"), User: "root", Key: key(1)}} {
			if v := p.DecideLogin(l, Statements{}, now); v.Allow {
				t.Errorf("%+v is allowed", l)
			}
		}
	})
}

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mayfly/inventory"
	"mayfly/policies"
)

var testNow = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

const (
	skKey    = "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAILmuPo8wAvzfd4IoqljYGIPIeq7tC8CdADuyro7FYkRIAAAABHNzaDo="
	plainKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK2XsgPmw0M66SYeBBHYzHUTHKu+/S+6c9wk0FFSSTOP"
)

func testFleet() inventory.Fleet {
	return inventory.Fleet{
		Name: "lab", Domain: "lab.test",
		Network:  inventory.Network{Management: []netip.Prefix{netip.MustParsePrefix("10.77.0.0/24")}},
		Bastions: []inventory.Bastion{{Name: "b1", Address: netip.MustParseAddr("10.77.0.2"), Port: 22}, {Name: "b2", Address: netip.MustParseAddr("10.77.0.3"), Port: 22}},
		Regions:  []inventory.Region{{Name: "se"}, {Name: "nl"}},
		Racks:    []inventory.Rack{{Name: "r1", Region: "se"}, {Name: "r2", Region: "nl"}},
		Servers: []inventory.Server{
			{Name: "se-1", Rack: "r1", Address: netip.MustParsePrefix("10.77.0.11/24"), Tunnel: netip.MustParsePrefix("10.64.1.0/24")},
			{Name: "nl-1", Rack: "r2", Address: netip.MustParsePrefix("10.77.0.13/24"), Tunnel: netip.MustParsePrefix("10.64.3.0/24")},
		},
	}
}

func person(name string, keys ...string) policies.Engineer {
	e := policies.Engineer{Name: name}
	for _, k := range keys {
		e.Keys = append(e.Keys, policies.Key{Public: k, Evidence: "test:lab"})
	}
	return e
}

func TestGranted(t *testing.T) {
	grant := func(who, server string, ports ...uint16) policies.Grant {
		return policies.Grant{Engineers: []string{who}, Servers: []string{server}, Ports: ports}
	}
	tests := []struct {
		name   string
		policy policies.Policy
		want   string
	}{
		{"zero", policies.Policy{}, ""},
		{"by name", policies.Policy{Engineers: []policies.Engineer{person("ana", skKey)}, Grants: []policies.Grant{grant("ana", "se-1", 22)}}, "ana"},
		{"by region", policies.Policy{Engineers: []policies.Engineer{person("ana", skKey)}, Grants: []policies.Grant{grant("ana", "region:se", 22)}}, "ana"},
		{"everywhere, sorted", policies.Policy{Engineers: []policies.Engineer{person("bo", skKey), person("ana", skKey)}, Grants: []policies.Grant{grant("ana", "*", 22), grant("bo", "*", 80, 22)}}, "ana bo"},
		{"other server", policies.Policy{Engineers: []policies.Engineer{person("ana", skKey)}, Grants: []policies.Grant{grant("ana", "nl-1", 22)}}, ""},
		{"other region", policies.Policy{Engineers: []policies.Engineer{person("ana", skKey)}, Grants: []policies.Grant{grant("ana", "region:nl", 22)}}, ""},
		{"other port", policies.Policy{Engineers: []policies.Engineer{person("ana", skKey)}, Grants: []policies.Grant{grant("ana", "*", 80)}}, ""},
		{"no grant", policies.Policy{Engineers: []policies.Engineer{person("ana", skKey)}}, ""},
		{"evidence that is not accepted", policies.Policy{Hardware: policies.Hardware{TestRoots: []string{"other"}}, Engineers: []policies.Engineer{person("ana", skKey)}, Grants: []policies.Grant{grant("ana", "*", 22)}}, ""},
		{"no user verification", policies.Policy{SSH: policies.SSH{VerifyRequired: true}, Engineers: []policies.Engineer{person("ana", skKey)}, Grants: []policies.Grant{grant("ana", "*", 22)}}, ""},
		{"a robot", policies.Policy{Robots: []policies.Robot{{Name: "ana", Public: skKey, Servers: []string{"se-1"}, Ports: []uint16{22}}}}, ""},
		{"software key", policies.Policy{Engineers: []policies.Engineer{person("ana", plainKey)}, Grants: []policies.Grant{grant("ana", "*", 22)}}, ""},
		{"key with a second line", policies.Policy{Engineers: []policies.Engineer{person("ana", skKey+"\n"+plainKey)}, Grants: []policies.Grant{grant("ana", "*", 22)}}, ""},
		{"root", policies.Policy{Engineers: []policies.Engineer{person("root", skKey)}, Grants: []policies.Grant{grant("root", "*", 22)}}, ""},
		{"an account of the image", policies.Policy{Engineers: []policies.Engineer{person("sshd", skKey)}, Grants: []policies.Grant{grant("sshd", "*", 22)}}, ""},
		{"a path", policies.Policy{Engineers: []policies.Engineer{person("../x", skKey)}, Grants: []policies.Grant{grant("../x", "*", 22)}}, ""},
		{"a pattern", policies.Policy{Engineers: []policies.Engineer{person("a*", skKey)}, Grants: []policies.Grant{grant("a*", "*", 22)}}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			names := func(now time.Time) string {
				var got []string
				for _, e := range granted(tt.policy, testFleet(), "se-1", now) {
					got = append(got, e.name)
				}
				return strings.Join(got, " ")
			}
			if tt.name != "zero" {
				tt.policy.Expires = testNow.Add(time.Hour)
			}
			if tt.policy.Hardware.TestRoots == nil {
				tt.policy.Hardware.TestRoots = []string{"lab"}
			}
			if got := names(testNow); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if got := names(testNow.Add(time.Hour)); got != "" {
				t.Errorf("an expired policy grants %q", got)
			}
		})
	}
}

func TestLostAccess(t *testing.T) {
	a := []engineer{{name: "ana", keys: []string{"k1", "k2"}}, {name: "bo", keys: []string{"k3"}}, {name: "cy", keys: []string{"k4"}},
		{name: "ed", keys: []string{"k7"}, session: true}, {name: "flo", session: true}}
	b := []engineer{{name: "ana", keys: []string{"k1"}}, {name: "cy", keys: []string{"k4", "k5"}}, {name: "di", keys: []string{"k6"}},
		{name: "ed", keys: []string{"k7"}}, {name: "flo", keys: []string{"k8"}, session: true}}
	if got := strings.Join(lostAccess(a, b), " "); got != "ana bo ed" {
		t.Errorf("got %q, want ana, who lost a key, bo, and ed, who lost recorded sessions", got)
	}
}

// TestSessionAuthority: sshd takes the session authority's certificates where a grant for sessions leads, for those engineers only.
func TestSessionAuthority(t *testing.T) {
	const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB"
	p := policies.Policy{Expires: time.Now().Add(time.Hour), Engineers: []policies.Engineer{{Name: "ana", Keys: []policies.Key{{Public: skKey, Evidence: "test:lab"}}}, {Name: "bo", Keys: []policies.Key{{Public: skKey, Evidence: "test:lab"}}}},
		Hardware: policies.Hardware{TestRoots: []string{"lab"}}, Session: policies.Session{Record: true, Recipients: []string{"age1q"}, Authority: key},
		Grants: []policies.Grant{{Engineers: []string{"ana"}, Servers: []string{"*"}, Ports: []uint16{22}}, {Engineers: []string{"bo"}, Servers: []string{"se-1"}, Ports: []uint16{22}}}}
	p.Grants[1].Session = true
	here := granted(p, testFleet(), "se-1", time.Now())
	if len(here) != 2 || here[0].name != "ana" || here[0].session || len(here[0].keys) != 1 || here[1].name != "bo" || !here[1].session || len(here[1].keys) != 0 {
		t.Fatalf("got %+v", here)
	}
	a, err := sshdAlgorithms(policies.Policy{SSH: policies.SSH{Level: policies.PQPreferred}})
	if err != nil {
		t.Fatal(err)
	}
	s := sshdSettings{listen: netip.MustParseAddr("10.77.0.11"), algorithms: a, dir: sshDir, engineers: here, bastions: bastionAddresses(testFleet()),
		authority: sessionAuthority(p, here)}
	lines := []string{"TrustedUserCAKeys " + sshDir + "/session_authority.pub", "AuthorizedPrincipalsFile " + sshDir + "/principals/%u",
		"PubkeyAcceptedAlgorithms sk-ssh-ed25519@openssh.com,sk-ecdsa-sha2-nistp256@openssh.com,ssh-ed25519-cert-v01@openssh.com"}
	got := string(sshdConfiguration(s))
	for _, line := range lines {
		if !strings.Contains(got, line+"\n") {
			t.Errorf("no line %q in:\n%s", line, got)
		}
	}
	if len(authorizedKeys(here[1], s.bastions)) != 0 {
		t.Error("who has recorded sessions only can log in by a key")
	}
	// Nobody else's server, and no policy without a session mode, takes them.
	other := granted(p, testFleet(), "se-2", time.Now())
	off := p
	off.Session = policies.Session{}
	for name, authority := range map[string]string{"another server": sessionAuthority(p, other), "off": sessionAuthority(off, granted(off, testFleet(), "se-1", time.Now()))} {
		s.authority = authority
		if got := string(sshdConfiguration(s)); authority != "" || strings.Contains(got, "TrustedUserCAKeys") || strings.Contains(got, "ed25519-cert") && strings.Contains(got, "PubkeyAcceptedAlgorithms sk-ssh-ed25519@openssh.com,sk-ecdsa-sha2-nistp256@openssh.com,ssh") {
			t.Errorf("%s: authority %q", name, authority)
		}
	}
}

func TestAccounts(t *testing.T) {
	var a accounts
	passwd, group, shadow, err := a.add([]engineer{{name: "ana"}, {name: "bo"}})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(passwd), "ana:x:2000:2000::/home/ana:/bin/sh\nbo:x:2001:2001::/home/bo:/bin/sh\n"; got != want {
		t.Errorf("passwd: got %q, want %q", got, want)
	}
	if got, want := string(group), "ana:x:2000:\nbo:x:2001:\n"; got != want {
		t.Errorf("group: got %q, want %q", got, want)
	}
	if got, want := string(shadow), "ana:*:::::::\nbo:*:::::::\n"; got != want {
		t.Errorf("shadow: got %q, want %q", got, want)
	}
	// ana goes, cy comes: no uid is given again.
	passwd, _, _, err = a.add([]engineer{{name: "bo"}, {name: "cy"}})
	if err != nil || string(passwd) != "cy:x:2002:2002::/home/cy:/bin/sh\n" {
		t.Errorf("got %q, %v", passwd, err)
	}
	if uid, ok := a.uid("ana"); !ok || uid != 2000 {
		t.Errorf("ana has uid %d, %v", uid, ok)
	}
	many := make([]engineer, maxAccounts+1)
	for i := range many {
		many[i].name = strings.Repeat("x", i+1)
	}
	if _, _, _, err := new(accounts).add(many); err == nil {
		t.Error("more accounts than the bound")
	}
}

func TestAuthorizedKeys(t *testing.T) {
	bastions := bastionAddresses(testFleet())
	got := string(authorizedKeys(engineer{name: "ana", keys: []string{skKey}}, bastions))
	if want := "from=\"10.77.0.2,10.77.0.3\",restrict,pty " + skKey + " ana\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := authorizedKeys(engineer{name: "ana", keys: []string{skKey}}, nil); got != nil {
		t.Errorf("without a bastion: got %q", got)
	}
	dir := t.TempDir()
	for _, step := range []struct {
		files map[string][]byte
		want  string
	}{
		{map[string][]byte{"ana": []byte("a"), "bo": []byte("b")}, "ana bo"},
		{map[string][]byte{"bo": []byte("b2"), "cy": nil}, "bo"},
		{nil, ""},
	} {
		if err := writeAuthorizedKeys(dir, step.files); err != nil {
			t.Fatal(err)
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
			data, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil || string(data) != string(step.files[e.Name()]) {
				t.Errorf("%s holds %q, %v", e.Name(), data, err)
			}
		}
		if got := strings.Join(names, " "); got != step.want {
			t.Errorf("got %q, want %q", got, step.want)
		}
	}
}

func TestHostRules(t *testing.T) {
	f := testFleet()
	rules := hostRules(bastionAddresses(f), tunnelAddress(f.Servers[0]))
	if err := checkRules(rules); err != nil {
		t.Fatal(err)
	}
	ssh := 0
	for _, r := range rules {
		if r.port == inventory.PortSSH {
			ssh++
			if !r.from.IsValid() || r.in != outside {
				t.Errorf("SSH from anywhere: %+v", r)
			}
		}
		if r.in == tunnelInterface && (r.to != netip.MustParseAddr("10.64.1.1") || r.port != inventory.PortDNS && r.port != inventory.PortNotice) {
			t.Errorf("from inside the tunnel: %+v", r)
		}
	}
	if ssh != 2 {
		t.Errorf("%d lines for SSH, want one for each bastion", ssh)
	}
	for _, r := range hostRules(nil, netip.Addr{}) {
		if r.port == inventory.PortSSH || r.in == tunnelInterface {
			t.Errorf("without bastions and tunnel: %+v", r)
		}
	}
	if got, want := sendRules(), []pass{{users: 2000, discard: true}, {groups: 2000, discard: true}}; !slices.Equal(got, want) {
		t.Errorf("going out: got %+v, want %+v", got, want)
	}
	for name, bad := range map[string]pass{
		"everything":         {},
		"all of outside":     {in: outside},
		"all of the tunnel":  {in: tunnelInterface},
		"SSH from everybody": {in: outside, proto: 6, port: inventory.PortSSH},
		"IPv6":               {in: outside, proto: 6, port: 1, from: netip.MustParseAddr("::1")},
		"no protocol":        {in: outside, port: 80},
	} {
		if err := checkRules([]pass{bad}); err == nil {
			t.Errorf("%s: let through", name)
		}
	}
}

func TestSSHDAlgorithms(t *testing.T) {
	for level, want := range map[policies.Level]string{
		policies.PQPreferred: "sntrup761x25519-sha512@openssh.com curve25519-sha256 curve25519-sha256@libssh.org",
		policies.PQOnly:      "sntrup761x25519-sha512@openssh.com",
	} {
		a, err := sshdAlgorithms(policies.Policy{SSH: policies.SSH{Level: level}})
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(a.KeyExchanges, " "); got != want {
			t.Errorf("%s: got %q, want %q", level, got, want)
		}
		for _, list := range [][]string{a.KeyExchanges, a.Ciphers, a.MACs, a.HostKeys, a.PublicKeys} {
			if len(list) == 0 || slices.ContainsFunc(list, func(s string) bool { return !known92[s] }) {
				t.Errorf("%s: list %q", level, list)
			}
		}
	}
	if _, err := sshdAlgorithms(policies.Policy{SSH: policies.SSH{Level: "weak"}}); err == nil {
		t.Error("an unknown level has algorithms")
	}
}

func TestSSHDConfiguration(t *testing.T) {
	a, err := sshdAlgorithms(policies.Policy{SSH: policies.SSH{Level: policies.PQPreferred}})
	if err != nil {
		t.Fatal(err)
	}
	s := sshdSettings{listen: netip.MustParseAddr("10.77.0.11"), algorithms: a, dir: sshDir,
		engineers: []engineer{{name: "ana"}, {name: "bo"}}, bastions: bastionAddresses(testFleet())}
	got := string(sshdConfiguration(s))
	for _, line := range []string{
		"AllowUsers ana@10.77.0.2 ana@10.77.0.3 bo@10.77.0.2 bo@10.77.0.3", "PermitRootLogin no", "PasswordAuthentication no", "UsePAM no",
		"PubkeyAuthOptions touch-required", "RevokedKeys " + sshDir + "/revoked_keys", "DisableForwarding yes", "LogLevel INFO", "ListenAddress 10.77.0.11",
		"PubkeyAcceptedAlgorithms sk-ssh-ed25519@openssh.com,sk-ecdsa-sha2-nistp256@openssh.com", "Ciphers aes256-gcm@openssh.com,aes128-gcm@openssh.com",
	} {
		if !strings.Contains(got, line+"\n") {
			t.Errorf("no line %q in:\n%s", line, got)
		}
	}
	s.verify = true
	if got := string(sshdConfiguration(s)); !strings.Contains(got, "PubkeyAuthOptions touch-required verify-required\n") {
		t.Errorf("user verification is not asked for:\n%s", got)
	}
	for name, nobody := range map[string]func(*sshdSettings){
		"no engineers": func(s *sshdSettings) { s.engineers = nil },
		"no bastions":  func(s *sshdSettings) { s.bastions = nil },
	} {
		x := s
		nobody(&x)
		got := string(sshdConfiguration(x))
		if !strings.Contains(got, "DenyUsers *\n") || strings.Contains(got, "AllowUsers") {
			t.Errorf("%s: somebody may log in:\n%s", name, got)
		}
	}
}

func TestTunnelConfiguration(t *testing.T) {
	f := testFleet()
	got, err := tunnelConfiguration(f, f.Servers[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"fqdn": "se-1.lab.test"`, `"network": "10.64.1.0/24"`, `"listen": "0.0.0.0:51820"`, `"10.77.0.0/24"`, `"outside": "eth0"`} {
		if !strings.Contains(string(got), want) {
			t.Errorf("no %s in %s", want, got)
		}
	}
	if got := tunnelAddress(f.Servers[0]); got.String() != "10.64.1.1" {
		t.Errorf("tunnel address %s", got)
	}
	conf, err := resolverConfiguration(f, f.Servers[0])
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(conf), `"10.64.1.1"`) || !strings.Contains(string(conf), `"10.77.0.0/24"`) {
		t.Errorf("resolver.json:\n%s", conf)
	}
}

func TestCutLost(t *testing.T) {
	var m machine
	if _, _, _, err := m.users.add([]engineer{{name: "ana"}, {name: "bo"}}); err != nil {
		t.Fatal(err)
	}
	m.lost = []string{"ana", "unknown", "bo"}
	var cut []string
	fail := errors.New("ana cannot be cut")
	err := m.cutLost(func(name string, uid int) error {
		cut = append(cut, fmt.Sprintf("%s %d", name, uid))
		if name == "ana" {
			return fail
		}
		return nil
	})
	if got := strings.Join(cut, ", "); !errors.Is(err, fail) || got != "ana 2000, bo 2001" {
		t.Errorf("got %q, %v, want both to be cut, and ana's error", got, err)
	}
	if got := strings.Join(m.lost, " "); got != "ana" {
		t.Errorf("still to cut: got %q, want ana", got)
	}
	if err := m.cutLost(func(string, int) error { return nil }); err != nil || len(m.lost) != 0 {
		t.Errorf("the next time: got %v, %q left", err, m.lost)
	}
}

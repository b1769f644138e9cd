package policies

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/bastion/hardkey"
	"mayfly/internal/hint"
	"mayfly/inventory"
	"mayfly/policies/krl"
)

var deskAddress = netip.MustParseAddr("198.51.100.17")

// deskFleet is the test fleet with two hosts beside its servers.
func deskFleet(t testing.TB) inventory.Fleet {
	f := lab(t)
	for i, name := range []string{"web-1", "web-2"} {
		f.Servers = append(f.Servers, inventory.Server{Name: name, Role: inventory.RoleHost, Address: netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(11 + i)}), 32)})
	}
	return f
}

// withAuthority is the test policy with a CA, whose key is softwareKey(50), and a robot.
func withAuthority(t testing.TB) Policy {
	p := parsed(t)
	p.Certificates.Authorities = []string{softwareKey(50)}
	p.Robots = []Robot{{Name: "deploy", Public: softwareKey(60), Source: netip.MustParsePrefix("198.51.100.9/32"), Servers: []string{"web-1"},
		Ports: []uint16{22}, Commands: []string{"/usr/local/bin/backup --daily"}}}
	return p
}

// certificate lets anna in from deskAddress.
func certificate() Certificate {
	return Certificate{Authority: softwareKey(50), Signed: true, User: true, Serial: 7, KeyID: "anna's laptop", Principals: []string{"anna"},
		ValidAfter: uint64(now.Add(-time.Minute).Unix()), ValidBefore: uint64(now.Add(time.Hour).Unix()),
		Options: map[string]string{"source-address": "198.51.100.0/26,2001:db8::1"}, Extensions: map[string]string{"permit-port-forwarding": ""}}
}

func TestDecideCertificate(t *testing.T) {
	p := withAuthority(t)
	if err := Check(p, deskFleet(t)); err != nil {
		t.Fatal(err)
	}
	option := func(name, value string) func(*Certificate) {
		return func(c *Certificate) { c.Options[name] = value }
	}
	principals := func(names ...string) func(*Certificate) {
		return func(c *Certificate) { c.Principals = names }
	}
	valid := func(after, before int64) func(*Certificate) {
		return func(c *Certificate) { c.ValidAfter, c.ValidBefore = uint64(after), uint64(before) }
	}
	at := now.Unix()
	for _, tt := range []struct {
		name   string
		change func(*Certificate)
		want   Reason
	}{
		{"good", func(*Certificate) {}, Allowed},
		{"its address alone", option("source-address", "198.51.100.17"), Allowed},
		{"verify-required", option("verify-required", ""), KeyNoUserVerification},
		{"more principals", principals("bert", "anna"), Allowed},
		{"zero", func(c *Certificate) { *c = Certificate{} }, CertificateAuthorityUnknown},
		{"another authority", func(c *Certificate) { c.Authority = softwareKey(51) }, CertificateAuthorityUnknown},
		{"authority with a comment", func(c *Certificate) { c.Authority += " x" }, CertificateAuthorityUnknown},
		{"authority without type", func(c *Certificate) { c.Authority = strings.Fields(c.Authority)[1] }, CertificateAuthorityUnknown},
		{"not signed", func(c *Certificate) { c.Signed = false }, CertificateAuthorityUnknown},
		{"a host's", func(c *Certificate) { c.User = false }, CertificateType},
		{"no principals", principals(), CertificatePrincipal},
		{"too many principals", principals(slices.Repeat([]string{"anna"}, maxPrincipals+1)...), CertificatePrincipal},
		{"somebody else", principals("bert"), CertificatePrincipal},
		{"a list in a name", principals("bert,anna"), CertificatePrincipal},
		{"a list in another name", principals("anna", "bert,carl"), CertificatePrincipal},
		{"a pattern", principals("*"), CertificatePrincipal},
		{"a pattern beside", principals("anna", "a*"), CertificatePrincipal},
		{"root beside", principals("anna", "root"), CertificatePrincipal},
		{"Root beside", principals("anna", "Root"), CertificatePrincipal},
		{"toor beside", principals("anna", "toor"), CertificatePrincipal},
		{"the image's account beside", principals("anna", "mayfly-tunnel"), CertificatePrincipal},
		{"an empty one beside", principals("anna", ""), CertificatePrincipal},
		{"a space", principals("anna "), CertificatePrincipal},
		{"another case", principals("Anna"), CertificatePrincipal},
		{"a zero byte", principals("anna\x00"), CertificatePrincipal},
		{"force-command", option("force-command", "id"), CertificateOption},
		{"unknown option", option("x@example.com", ""), CertificateOption},
		{"verify-required with a value", option("verify-required", "no"), CertificateOption},
		{"no-touch-required", func(c *Certificate) { c.Extensions["no-touch-required"] = "" }, CertificateOption},
		{"no-touch-required as an option", option("no-touch-required", ""), CertificateOption},
		{"no forwarding", func(c *Certificate) { delete(c.Extensions, "permit-port-forwarding") }, CertificateOption},
		{"no options", func(c *Certificate) { c.Options = nil }, CertificateSource},
		{"empty source", option("source-address", ""), CertificateSource},
		{"another source", option("source-address", "192.0.2.0/24"), CertificateSource},
		{"every source", option("source-address", "0.0.0.0/0"), CertificateSource},
		{"every source beside", option("source-address", "198.51.100.17,::/0"), CertificateSource},
		{"a space in it", option("source-address", "192.0.2.1, 198.51.100.17"), CertificateSource},
		{"not that one", option("source-address", "!192.0.2.1,198.51.100.17"), CertificateSource},
		{"a pattern of addresses", option("source-address", "198.51.100.*"), CertificateSource},
		{"host bits", option("source-address", "198.51.100.17/26"), CertificateSource},
		{"an IPv4 address in IPv6", option("source-address", "::ffff:198.51.100.17"), CertificateSource},
		{"a trailing comma", option("source-address", "198.51.100.17,"), CertificateSource},
		{"too many sources", option("source-address", strings.Repeat("198.51.100.17,", maxSources)+"198.51.100.17"), CertificateSource},
		{"for ever", valid(0, -1), CertificateLifetime},
		{"from ever", valid(0, at+60), CertificateLifetime},
		{"a day and a second", valid(at-60, at-60+24*3600+1), CertificateLifetime},
		{"a day", valid(at-60, at-60+24*3600), Allowed},
		{"backwards", valid(at+60, at-60), CertificateLifetime},
		{"never", valid(at, at), CertificateLifetime},
		{"first second", valid(at, at+60), Allowed},
		{"not yet", valid(at+1, at+60), CertificateEarly},
		{"last second", valid(at-60, at+1), Allowed},
		{"expired", valid(at-60, at), CertificateExpired},
		{"largest numbers", valid(-2, -1), CertificateEarly},
	} {
		c := certificate()
		tt.change(&c)
		check(t, tt.name, p.DecideLogin(Login{Source: deskAddress, User: "anna", Key: key(1), Certificate: &c}, Statements{}, now), tt.want)
	}
	c := certificate()
	for _, tt := range []struct {
		name, user, key string
		want            Reason
	}{
		{"bert's key", "anna", key(3), CertificateKeyUnknown}, {"key of nobody", "anna", key(9), CertificateKeyUnknown},
		{"software key", "anna", softwareKey(1), KeyNotHardware}, {"no key", "anna", "", KeyNotHardware},
		{"bert", "bert", key(3), CertificatePrincipal}, {"nobody", "eve", key(1), UserUnknown}, {"root", "root", key(1), UserRoot},
	} {
		check(t, tt.name, p.DecideLogin(Login{Source: deskAddress, User: tt.user, Key: tt.key, Certificate: &c}, Statements{}, now), tt.want)
	}
	c.Principals = []string{"deploy"}
	check(t, "a robot", p.DecideLogin(Login{Source: netip.MustParseAddr("198.51.100.9"), User: "deploy", Key: softwareKey(60), Certificate: &c}, Statements{}, now), CertificateKeyUnknown)
	c = certificate()
	none := p
	none.Certificates.Authorities = nil
	check(t, "no authorities", none.DecideLogin(Login{Source: deskAddress, User: "anna", Key: key(1), Certificate: &c}, Statements{}, now), CertificateAuthorityUnknown)
	longer := p
	longer.Certificates.MaxLife = Duration(48 * time.Hour)
	c.ValidBefore = c.ValidAfter + 48*3600
	check(t, "a longer life", longer.DecideLogin(Login{Source: deskAddress, User: "anna", Key: key(1), Certificate: &c}, Statements{}, now), Allowed)
	verified := p
	verified.Engineers = []Engineer{{Name: "anna", Keys: []Key{{Public: key(1), Evidence: "test:softkey+uv"}}}}
	c = certificate()
	c.Options["verify-required"] = ""
	check(t, "user verification proven", verified.DecideLogin(Login{Source: deskAddress, User: "anna", Key: key(1), Certificate: &c}, Statements{}, now), Allowed)
}

// revocations has ssh-keygen make a list.
func revocations(t *testing.T, specification string, ca string) Revocations {
	t.Helper()
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		t.Skip("no ssh-keygen on this machine: apt-get install openssh-client")
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"spec": specification + "\n", "ca.pub": ca + "\n"} {
		if err := os.WriteFile(dir+"/"+name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("ssh-keygen", "-q", "-k", "-f", "list", "-s", "ca.pub", "spec")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen -k: %v: %s", err, out)
	}
	data, err := os.ReadFile(dir + "/list")
	if err != nil {
		t.Fatal(err)
	}
	r, err := NewRevocations(data)
	if err != nil {
		t.Fatal(err)
	}
	if string(r.Bytes()) != string(data) {
		t.Error("the list is not handed on as it was")
	}
	return r
}

func TestDecideRevoked(t *testing.T) {
	p, f := withAuthority(t), deskFleet(t)
	c := certificate()
	plain := Login{Source: deskAddress, User: "anna", Key: key(1)}
	certified := plain
	certified.Certificate = &c
	robot := Login{Source: netip.MustParseAddr("198.51.100.9"), User: "deploy", Key: softwareKey(60)}
	bert := Login{Source: deskAddress, User: "bert", Key: key(3)}
	for _, tt := range []struct {
		name, specification              string
		plain, certified, robot, another Reason
	}{
		{"nothing", "", Allowed, Allowed, Allowed, Allowed},
		{"key", "key: " + key(1), KeyRevoked, CertificateRevoked, Allowed, Allowed},
		{"SHA-1", "sha1: " + key(1), KeyRevoked, CertificateRevoked, Allowed, Allowed},
		{"SHA-256", "sha256: " + key(1), KeyRevoked, CertificateRevoked, Allowed, Allowed},
		{"serial", "serial: 7", Allowed, CertificateRevoked, Allowed, Allowed},
		{"another serial", "serial: 8-100", Allowed, Allowed, Allowed, Allowed},
		{"ID", "id: anna's laptop", Allowed, CertificateRevoked, Allowed, Allowed},
		{"authority", "key: " + softwareKey(50), Allowed, CertificateRevoked, Allowed, Allowed},
		{"robot", "sha256: " + softwareKey(60), Allowed, Allowed, KeyRevoked, Allowed},
		{"two", "key: " + key(3) + "\nserial: 7", Allowed, CertificateRevoked, Allowed, KeyRevoked},
	} {
		p.Certificates.KRL = revocations(t, tt.specification, softwareKey(50))
		if err := Check(p, f); err != nil {
			t.Errorf("%s: a policy may revoke what it enrols: %v", tt.name, err)
		}
		for _, x := range []struct {
			who  string
			l    Login
			want Reason
		}{{"key", plain, tt.plain}, {"certificate", certified, tt.certified}, {"robot", robot, tt.robot}, {"bert", bert, tt.another}} {
			check(t, tt.name+": "+x.who, p.DecideLogin(x.l, Statements{}, now), x.want)
		}
		// Servers do not even know a revoked key, and an approval by it is none.
		for _, e := range p.Granted(Target{"se-1", 22}, f, now) {
			if slices.ContainsFunc(e.Keys, func(k Key) bool { return k.Public == key(1) }) != (tt.plain == Allowed) {
				t.Errorf("%s: servers know %+v", tt.name, e)
			}
		}
		if _, v := p.Owner(key(1)); v.Allow != (tt.plain == Allowed) {
			t.Errorf("%s: owner: %+v", tt.name, v)
		}
		if got := len(p.RobotsOf("web-1", f, now)); got == 1 != (tt.robot == Allowed) {
			t.Errorf("%s: %d robots on the host", tt.name, got)
		}
	}
	if p.Certificates.KRL = (Revocations{}); p.Certificates.KRL.Bytes() != nil {
		t.Error("no list has bytes")
	}
	if got := p.RobotsOf("se-1", f, now); got != nil {
		t.Errorf("robots of a VPN server: %+v", got)
	}
	if got := p.RobotsOf("web-1", f, p.Expires); got != nil {
		t.Errorf("robots of an expired policy: %+v", got)
	}
}

func TestVerifyRequired(t *testing.T) {
	p, f := parsed(t), lab(t)
	p.SSH.VerifyRequired = true
	if err := Check(p, f); err == nil || !strings.Contains(err.Error(), "does not prove user verification") {
		t.Errorf("got %v", err)
	}
	anna := Login{Source: deskAddress, User: "anna", Key: key(1)}
	check(t, "without", p.DecideLogin(anna, Statements{}, now), KeyNoUserVerification)
	if got := p.Granted(Target{"se-1", 22}, f, now); got != nil {
		t.Errorf("servers know %+v", got)
	}
	for i := range p.Engineers {
		for j := range p.Engineers[i].Keys {
			p.Engineers[i].Keys[j].Evidence = "test:softkey+uv"
		}
	}
	if err := Check(p, f); err != nil {
		t.Error(err)
	}
	check(t, "with", p.DecideLogin(anna, Statements{}, now), Allowed)
}

func TestEvidence(t *testing.T) {
	p := Policy{Hardware: Hardware{TestRoots: []string{"softkey"}}}
	for text, want := range map[string]hardkey.Proof{
		"test:softkey":    {Kind: "test", Issuer: "softkey", Test: true, Touch: true},
		"test:softkey+uv": {Kind: "test", Issuer: "softkey", Test: true, Touch: true, UserVerification: true},
	} {
		if got, v := p.Proof("anna", Key{Evidence: text}); !v.Allow || got != want {
			t.Errorf("%s: got %+v, %+v", text, got, v)
		}
	}
	for _, text := range []string{"", "test:", "test:+uv", "test:other", "test:softkey+UV", "test:softkey+uv+uv", "softkey", "TEST:softkey", "test:softkey ", "fido2:softkey", "piv", "fido2"} {
		if got, v := p.Proof("anna", Key{Evidence: text}); v.Allow || v.Reason != KeyNoEvidence || got != (hardkey.Proof{}) {
			t.Errorf("%q: got %+v, %+v", text, got, v)
		}
	}
}

func TestDecideRobot(t *testing.T) {
	p, f := withAuthority(t), deskFleet(t)
	from := netip.MustParseAddr("198.51.100.9")
	good := Login{Source: from, User: "deploy", Key: softwareKey(60)}
	for _, tt := range []struct {
		name  string
		login Login
		want  Reason
	}{
		{"good", good, Allowed},
		{"mapped address", Login{Source: netip.MustParseAddr("::ffff:198.51.100.9"), User: "deploy", Key: softwareKey(60)}, Allowed},
		{"another address of the list", Login{Source: deskAddress, User: "deploy", Key: softwareKey(60)}, AddressNotListed},
		{"anna's key", Login{Source: from, User: "deploy", Key: key(1)}, KeyUnknown},
		{"another software key", Login{Source: from, User: "deploy", Key: softwareKey(61)}, KeyUnknown},
		{"no key", Login{Source: from, User: "deploy"}, KeyNotHardware},
		{"its key for anna", Login{Source: from, User: "anna", Key: softwareKey(60)}, KeyNotHardware},
	} {
		v := p.DecideLogin(tt.login, Statements{}, now)
		check(t, tt.name, v, tt.want)
		if tt.login.User == "deploy" && v.Kind != KindRobot {
			t.Errorf("%s: kind %q", tt.name, v.Kind)
		}
	}
	for _, tt := range []struct {
		target Target
		want   Reason
	}{
		{Target{"web-1", 22}, Allowed}, {Target{"web-1", 23}, PortNotGranted}, {Target{"web-1", 0}, PortNotGranted}, {Target{"web-2", 22}, TargetNotGranted},
		{Target{"se-1", 22}, RobotNotToVPN}, {Target{"web-9", 22}, TargetUnknown}, {Target{"", 22}, TargetUnknown},
	} {
		v := p.DecideTarget(good, tt.target, f, Statements{}, now)
		check(t, fmt.Sprint(tt.target), v, tt.want)
		if v.Kind != KindRobot {
			t.Errorf("%v: kind %q", tt.target, v.Kind)
		}
	}
	// Whatever a policy says that was never checked: no VPN server, no wide source, and no person's grants.
	wild := p
	wild.Robots = []Robot{{Name: "deploy", Public: softwareKey(60), Source: netip.MustParsePrefix("198.51.100.9/32"), Servers: []string{"se-1", "*", "region:se"}, Ports: []uint16{22}}}
	wild.Grants = append(wild.Grants, Grant{Engineers: []string{"deploy"}, Servers: []string{"*"}, Ports: []uint16{22}})
	check(t, "listed VPN server", wild.DecideTarget(good, Target{"se-1", 22}, f, Statements{}, now), RobotNotToVPN)
	check(t, "star", wild.DecideTarget(good, Target{"web-1", 22}, f, Statements{}, now), TargetNotGranted)
	wild.Robots[0].Source = netip.MustParsePrefix("198.51.100.0/26")
	check(t, "wide source", wild.DecideLogin(good, Statements{}, now), AddressNotListed)
	if len(wild.Granted(Target{"se-1", 22}, f, now)) != 1 { // anna
		t.Error("servers know a robot")
	}
}

// TestCheckKeys changes a good policy in one place and asks for one error at the right path.
func TestCheckKeys(t *testing.T) {
	f := deskFleet(t)
	for _, tt := range []struct {
		name   string
		change func(*Policy)
		want   string
	}{
		{"robot called root", func(p *Policy) { p.Robots[0].Name = "root" }, "robot[0].name: "},
		{"robot called like a service", func(p *Policy) { p.Robots[0].Name = "sshd" }, "robot[0].name: "},
		{"robot called anna", func(p *Policy) { p.Robots[0].Name = "anna" }, "robot[0].name: "},
		{"robot twice", func(p *Policy) { p.Robots = append(p.Robots, p.Robots[0]) }, "robot[1].name: "},
		{"anna's key", func(p *Policy) { p.Robots[0].Public = key(1) }, "robot[0].public: "},
		{"no key", func(p *Policy) { p.Robots[0].Public = "ssh-ed25519" }, "robot[0].public: "},
		{"NIST key", func(p *Policy) { p.Robots[0].Public = nistKey }, "robot[0].public: "},
		{"key with options", func(p *Policy) { p.Robots[0].Public = "no-pty " + softwareKey(60) }, "robot[0].public: "},
		{"no source", func(p *Policy) { p.Robots[0].Source = netip.Prefix{} }, "robot[0].source: "},
		{"a network", func(p *Policy) { p.Robots[0].Source = netip.MustParsePrefix("198.51.100.8/31") }, "robot[0].source: "},
		{"a source off the list", func(p *Policy) { p.Robots[0].Source = netip.MustParsePrefix("192.0.2.9/32") }, "robot[0].source: "},
		{"no servers", func(p *Policy) { p.Robots[0].Servers = nil }, "robot[0].servers: "},
		{"a VPN server", func(p *Policy) { p.Robots[0].Servers = []string{"web-1", "se-1"} }, "robot[0].servers[1]: "},
		{"every server", func(p *Policy) { p.Robots[0].Servers = []string{"*"} }, "robot[0].servers[0]: "},
		{"a region", func(p *Policy) { p.Robots[0].Servers = []string{"region:se"} }, "robot[0].servers[0]: "},
		{"no ports", func(p *Policy) { p.Robots[0].Ports = nil }, "robot[0].ports: "},
		{"no commands", func(p *Policy) { p.Robots[0].Commands = nil }, "robot[0].commands: "},
		{"an empty command", func(p *Policy) { p.Robots[0].Commands = []string{""} }, "robot[0].commands[0]: "},
		{"a line break", func(p *Policy) { p.Robots[0].Commands = []string{"a\nb"} }, "robot[0].commands[0]: "},
		{"not ASCII", func(p *Policy) { p.Robots[0].Commands = []string{"écho"} }, "robot[0].commands[0]: "},
		{"command twice", func(p *Policy) { p.Robots[0].Commands = []string{"a", "a"} }, "robot[0].commands[1]: "},
		{"command too long", func(p *Policy) { p.Robots[0].Commands = []string{strings.Repeat("a", maxCommand+1)} }, "robot[0].commands[0]: "},
		{"engineer called toor", func(p *Policy) { p.Engineers[0].Name = "toor" }, "engineer[0].name: "},
		{"authority that is no key", func(p *Policy) { p.Certificates.Authorities = []string{"x"} }, "certificates.authorities[0]: "},
		{"authority of a NIST key", func(p *Policy) { p.Certificates.Authorities = []string{nistKey} }, "certificates.authorities[0]: "},
		{"authority twice", func(p *Policy) { p.Certificates.Authorities = []string{softwareKey(50), softwareKey(50)} }, "certificates.authorities[1]: "},
		{"anna as an authority", func(p *Policy) { p.Certificates.Authorities = []string{key(1)} }, "certificates.authorities[0]: "},
		{"life too long", func(p *Policy) { p.Certificates.MaxLife = Duration(MaxCertificateLife + time.Second) }, "certificates.max_life: "},
		{"empty ciphers", func(p *Policy) { p.SSH.Ciphers = []string{} }, "ssh.ciphers: "},
		{"empty key exchanges", func(p *Policy) { p.SSH.KeyExchanges = []string{} }, "ssh.key_exchanges: "},
		{"unknown cipher", func(p *Policy) { p.SSH.Ciphers = []string{"aes256-gcm"} }, `ssh.ciphers[0]: `},
		{"cipher of another level", func(p *Policy) { p.SSH.Ciphers = []string{"aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com"} }, "too weak"},
		{"CTR", func(p *Policy) { p.SSH.Ciphers = []string{"aes256-ctr"} }, "too weak"},
		{"finite field", func(p *Policy) { p.SSH.KeyExchanges = []string{"diffie-hellman-group16-sha512"} }, "too weak"},
		{"NIST curve", func(p *Policy) { p.SSH.KeyExchanges = []string{"ecdh-sha2-nistp256"} }, "too weak"},
		{"SHA-1", func(p *Policy) { p.SSH.MACs = []string{"hmac-sha1"} }, "too weak"},
		{"software user keys", func(p *Policy) { p.SSH.UserKeys = []string{"rsa-sha2-512"} }, "too weak"},
		{"RSA host keys", func(p *Policy) { p.SSH.HostKeys = []string{"ssh-rsa"} }, "too weak"},
		{"X25519 in pq-only", func(p *Policy) { p.SSH.Level, p.SSH.KeyExchanges = PQOnly, []string{"curve25519-sha256"} }, "too weak"},
		{"cipher twice", func(p *Policy) { p.SSH.Ciphers = []string{"aes256-gcm@openssh.com", "aes256-gcm@openssh.com"} }, "ssh.ciphers[1]: "},
		{"keys of a type left out", func(p *Policy) { p.SSH.UserKeys = []string{skECDSA} }, "engineer[0].key[0].public: "},
		{"too many robots' sessions", func(p *Policy) { p.SSH.MaxRobots = 1 << 20 }, "ssh.max_robots: "},
	} {
		p := withAuthority(t)
		tt.change(&p)
		err := Check(p, f)
		if err == nil || !strings.Contains(err.Error(), tt.want) || hint.Of(err) == "" {
			t.Errorf("%s: got %v, want %q and a hint", tt.name, err, tt.want)
		}
	}
}

// nistKey is a key of a type that no software key of a policy has.
var nistKey = func() string {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	public, err := ssh.NewPublicKey(&private.PublicKey)
	if err != nil {
		panic(err)
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(public)))
}()

// An empty list, and text that is no revocation list, do not even parse; each on its line.
func TestParseKeys(t *testing.T) {
	good, f := read(t), lab(t)
	for name, add := range map[string]string{
		"empty ciphers": "ciphers = []", "empty user keys": "user_keys = []", "verify_required as text": `verify_required = "yes"`,
	} {
		text := strings.Replace(good, "max_sessions = 10", "max_sessions = 10\n"+add, 1)
		if _, err := Parse("policy.toml", []byte(text), f); err == nil || !strings.Contains(err.Error(), "policy.toml:9: ") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	for name, value := range map[string]string{
		"no base64": "!", "no list": "AAAA", "line break": `QUFB\n`, "not the one form": strings.TrimRight(base64.StdEncoding.EncodeToString([]byte("ab")), "="),
		"too long": strings.Repeat("A", base64.StdEncoding.EncodedLen(krl.MaxSize)+4),
	} {
		text := good + "\n[certificates]\nkrl = \"" + value + "\"\n"
		if _, err := Parse("policy.toml", []byte(text), f); err == nil || hint.Of(err) == "" {
			t.Errorf("%s: got %v and hint %q", name, err, hint.Of(err))
		}
	}
	text := strings.Replace(good, "max_sessions = 10", "verify_required = false\nciphers = [\"aes128-gcm@openssh.com\"]\nkey_exchanges = [\"mlkem768x25519-sha256\"]", 1)
	p, err := Parse("policy.toml", []byte(text), f)
	if err != nil {
		t.Fatal(err)
	}
	a, err := p.SSH.Algorithms()
	if err != nil || !slices.Equal(a.Ciphers, []string{"aes128-gcm@openssh.com"}) || !slices.Equal(a.KeyExchanges, []string{"mlkem768x25519-sha256"}) || len(a.MACs) == 0 || len(a.HostKeys) == 0 || len(a.PublicKeys) == 0 {
		t.Errorf("got %+v, %v", a, err)
	}
}

// Names of uid 0 are refused by their own reason in every spelling, as every account of the system is.
func TestForbiddenUsers(t *testing.T) {
	p := parsed(t)
	for _, name := range []string{"root", "Root", "ROOT", " root", "root ", "root\x00", "root\n", "r o o t", "\u00a0root", "root\u200b", "ｒｏｏｔ", "ＲＯＯＴ", "rооt", "rοοt", "toor", "TOOR", "root.", "root@"} {
		check(t, fmt.Sprintf("%q", name), p.DecideLogin(Login{Source: deskAddress, User: name, Key: key(1)}, Statements{}, now), UserRoot)
		if AccountName(name) {
			t.Errorf("%q is an account's name", name)
		}
	}
	for _, name := range []string{"sshd", "SSHD", "mayfly-tunnel", "daemon ", "nobody"} {
		check(t, name, p.DecideLogin(Login{Source: deskAddress, User: name, Key: key(1)}, Statements{}, now), UserReserved)
		if AccountName(name) {
			t.Errorf("%q is an account's name", name)
		}
	}
	// Even if a policy that was never checked has them.
	bad := p
	for _, name := range []string{"root", "toor", "sshd"} {
		bad.Engineers = []Engineer{{Name: name, Keys: p.Engineers[0].Keys}}
		bad.Robots = []Robot{{Name: name, Public: softwareKey(60), Source: netip.PrefixFrom(deskAddress, 32)}}
		bad.BreakGlass = []BreakGlass{{Name: name, Keys: p.Engineers[0].Keys}}
		s := Statements{Openings: []Opening{{ID: "x", Name: name, Expires: now.Add(time.Hour)}}}
		for _, k := range []string{key(1), softwareKey(60)} {
			if v := bad.DecideLogin(Login{Source: deskAddress, User: name, Key: k}, s, now); v.Allow {
				t.Errorf("%s is allowed", name)
			}
		}
	}
	for _, name := range []string{"roota", "anna", "r00t"} {
		if forbiddenUser(name) != "" {
			t.Errorf("%q is refused for its name", name)
		}
	}
}

// TestEveryNameCostsTheSame counts comparisons: they are as many for anybody, whether there or not, with a good key or not.
func TestEveryNameCostsTheSame(t *testing.T) {
	p := withAuthority(t)
	want := 0
	for _, e := range p.Engineers {
		want += 1 + len(e.Keys)
	}
	want += 2 * len(p.Robots)
	for _, name := range []string{"anna", "bert", "deploy", "eve", "", "root", strings.Repeat("x", 1000)} {
		for _, k := range []string{key(1), key(3), key(9), softwareKey(60), "", "x"} {
			if got := p.find(name, k).compared; got != want {
				t.Errorf("%q with %.40q: %d comparisons, want %d", name, k, got, want)
			}
			// The decision on the key runs for a name that nobody has, too: only its verdict is another.
			l := Login{Source: deskAddress, User: name, Key: k}
			if v := p.decideAccount(p.find(name, k), l, Statements{}, now); v.Reason == "" {
				t.Errorf("%q: nothing was decided", name)
			}
		}
	}
}

// BenchmarkDecideLogin compares a known and an unknown name in a large policy.
func BenchmarkDecideLogin(b *testing.B) {
	p := parsed(b)
	for i := range 500 {
		p.Engineers = append(p.Engineers, Engineer{Name: fmt.Sprintf("e%d", i), Keys: []Key{{Public: key(byte(i)) + fmt.Sprint(i), Evidence: "test:softkey"}}})
	}
	for name, user := range map[string]string{"known": "anna", "last": "e499", "unknown": "mallory"} {
		l := Login{Source: deskAddress, User: user, Key: key(200)}
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				p.DecideLogin(l, Statements{}, now)
			}
		})
	}
}

func TestLockedOut(t *testing.T) {
	text := func(l Level) string {
		a, err := l.Algorithms()
		if err != nil {
			t.Fatal(err)
		}
		for _, list := range [][]string{a.KeyExchanges, a.Ciphers, a.MACs, a.HostKeys, a.PublicKeys} {
			for _, name := range list {
				if Why(name) == "" {
					t.Errorf("nothing says why %s is offered", name)
				}
			}
		}
		return fmt.Sprint(a.LockedOut())
	}
	if got := text(PQPreferred); strings.Contains(got, "OpenSSH") || !strings.Contains(got, "{PuTTY, plink before 0.78 AES-GCM}") || !strings.Contains(got, "Dropbear") || !strings.Contains(got, "{Paramiko before 3.5.0 AES-GCM}") {
		t.Errorf("pq-preferred: %s", got)
	}
	if got := text(PQOnly); !strings.Contains(got, "{OpenSSH before 9.9 mlkem768x25519-sha256}") || !strings.Contains(got, "{PuTTY, plink before 0.83") || !strings.Contains(got, "AsyncSSH") || !strings.Contains(got, "{Paramiko up to 3.5 ") {
		t.Errorf("pq-only: %s", got)
	}
}

// A robot's line has one forced command, which a shell takes apart as it was put together.
func TestAuthorizedKey(t *testing.T) {
	r := Robot{Name: "deploy", Public: softwareKey(60), Commands: []string{"uptime", `echo "it's" \ '"'`}}
	line := r.AuthorizedKey([]netip.Addr{netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::2")})
	if !strings.HasPrefix(line, `from="192.0.2.2,2001:db8::2",restrict,command="case \"$SSH_ORIGINAL_COMMAND\" in 'uptime') exec /bin/sh -c 'uptime';; `) || !strings.HasSuffix(line, `esac" `+softwareKey(60)+" deploy") {
		t.Errorf("got %s", line)
	}
	for _, c := range []struct{ asked, want string }{{r.Commands[0], "ran"}, {r.Commands[1], "it's  \"\n"}, {"id", ""}, {"uptime ", ""}} {
		script := strings.Replace(r.dispatcher(), "/bin/sh -c 'uptime'", "echo ran", 1)
		cmd := exec.Command("/bin/sh", "-c", script)
		cmd.Env = []string{"SSH_ORIGINAL_COMMAND=" + c.asked}
		out, err := cmd.Output()
		if strings.TrimSpace(string(out)) != strings.TrimSpace(c.want) || (err == nil) != (c.want != "") {
			t.Errorf("%q: got %q, %v", c.asked, out, err)
		}
	}
}

// FuzzPublicKey reads the lines that policies enrol: a key is taken in one form only.
func FuzzPublicKey(f *testing.F) {
	for _, text := range []string{key(1), softwareKey(1), nistKey, key(1) + " comment", "no-touch-required " + key(1), "@cert-authority * " + key(1), "command=\"x\",from=\"1.2.3.4\" " + softwareKey(2), "ssh-ed25519", "", "sk-ssh-ed25519-cert-v01@openssh.com AAAA"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		key, err := plainKey(text)
		if err != nil {
			return
		}
		if blob, ok := keyBlob(text); !ok || string(blob) != string(key.Marshal()) {
			t.Errorf("%q: the blob is another", text)
		}
		if keyType(text) != key.Type() || strings.ContainsAny(text, "\r\n") || strings.Count(text, " ") != 1 {
			t.Errorf("%q is taken", text)
		}
	})
}

// FuzzSources reads source-address as certificates have it.
func FuzzSources(f *testing.F) {
	for _, text := range []string{"198.51.100.17", "198.51.100.0/26,2001:db8::/32", "0.0.0.0/0", "!1.2.3.4", "1.2.3.4, 5.6.7.8", "::ffff:1.2.3.4", "", ","} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		list, err := parseSources(text)
		if err != nil {
			return
		}
		if len(list) == 0 || len(list) > maxSources {
			t.Errorf("%q: %d networks", text, len(list))
		}
		for _, p := range list {
			if !p.IsValid() || p.Bits() == 0 || p.Addr().Is4In6() || p.Addr().Zone() != "" {
				t.Errorf("%q: %s", text, p)
			}
		}
	})
}

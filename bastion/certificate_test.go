package bastion

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/inventory"
	"mayfly/policies"
	"mayfly/testenv/softkey"
)

// keygen runs the machine's ssh-keygen in the fixture's directory.
func (f *fixture) keygen(args ...string) {
	f.t.Helper()
	path, err := exec.LookPath("ssh-keygen")
	if err != nil {
		f.t.Skip("no ssh-keygen on this machine: apt-get install openssh-client")
	}
	cmd := exec.Command(path, append([]string{"-q"}, args...)...)
	cmd.Dir = f.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		f.t.Fatalf("ssh-keygen %v: %v\n%s", args, err, out)
	}
}

func (f *fixture) read(name string) []byte {
	f.t.Helper()
	data, err := os.ReadFile(f.path(name))
	if err != nil {
		f.t.Fatal(err)
	}
	return data
}

// authority makes a CA of user certificates and lists it in the policy.
func (f *fixture) authority() {
	f.t.Helper()
	f.keygen("-t", "ed25519", "-N", "", "-C", "", "-f", "user_ca")
	f.policy.Certificates.Authorities = []string{strings.TrimSpace(string(f.read("user_ca.pub")))}
	f.policy.Certificates.Authorities[0] = strings.Join(strings.Fields(f.policy.Certificates.Authorities[0])[:2], " ")
}

// certify has ssh-keygen make a certificate for a key, and returns a signer that offers it.
func (f *fixture) certify(key ssh.Signer, args ...string) ssh.Signer {
	f.t.Helper()
	f.write(f.path("c.pub"), ssh.MarshalAuthorizedKey(key.PublicKey()), 0o644)
	f.keygen(append(args, "c.pub")...)
	parsed, _, _, _, err := ssh.ParseAuthorizedKey(f.read("c-cert.pub"))
	if err != nil {
		f.t.Fatal(err)
	}
	signer, err := ssh.NewCertSigner(parsed.(*ssh.Certificate), key)
	if err != nil {
		f.t.Fatal(err)
	}
	return signer
}

// goodCertificate is what ssh-keygen is asked for in a certificate that lets anna in.
var goodCertificate = []string{"-s", "user_ca", "-I", "anna's laptop", "-n", "anna", "-z", "7", "-V", "-1m:+1h", "-O", "source-address=127.0.0.1/32"}

// changed is goodCertificate with some arguments, by their flag, replaced; an empty value takes the flag away.
func changed(pairs ...string) []string {
	args := append([]string(nil), goodCertificate...)
	for i := 0; i < len(pairs); i += 2 {
		flag, value := pairs[i], pairs[i+1]
		done := false
		for j := 0; j < len(args); j += 2 {
			if args[j] == flag && !done && (flag != "-O" || value == "") {
				done = true
				if args[j+1] = value; value == "" {
					args = append(args[:j], args[j+2:]...)
				}
			}
		}
		if !done {
			args = append(args, flag)
			if value != "" {
				args = append(args, value)
			}
		}
	}
	return args
}

func TestCertificateLogin(t *testing.T) {
	f := newFixture(t)
	f.authority()
	f.writeBundle(2)
	f.target("10.77.0.11:22", echo)
	f.start()
	client := f.login("anna", f.certify(f.anna.Signer(softkey.Always), goodCertificate...))
	conn, err := client.Dial("tcp", "se-1:22")
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	f.hangUp(client)
	if login := string(f.next(eventLogin).Record); !strings.Contains(login, `"certificate":{"serial":7,"id":"anna's laptop","authority":"SHA256:`) {
		t.Errorf("login record: %s", login)
	}
	r := f.closing()
	if r.Outcome != "accepted" || r.Certificate == nil || r.Certificate.Serial != 7 || r.Key != ssh.FingerprintSHA256(f.anna.Public()) ||
		r.KeyType != softkey.KeyType || r.Evidence != "test:softkey" || r.Identity != "engineer" {
		t.Errorf("record: %+v", r)
	}
}

// TestCertificatesRefused has each certificate made by ssh-keygen, and pins the reason that the closing record gives.
func TestCertificatesRefused(t *testing.T) {
	software := newSigner(t)
	for _, test := range []struct {
		name   string
		args   []string
		want   policies.Reason
		key    func(*fixture) ssh.Signer // anna's, touched, if nil
		before func(*fixture)
	}{
		{name: "another authority", args: changed("-s", "other_ca"), want: policies.CertificateAuthorityUnknown,
			before: func(f *fixture) { f.keygen("-t", "ed25519", "-N", "", "-f", "other_ca") }},
		{name: "no authorities", args: goodCertificate, want: policies.CertificateAuthorityUnknown,
			before: func(f *fixture) { f.policy.Certificates.Authorities = nil }},
		{name: "a host's", args: changed("-h", "", "-O", ""), want: policies.CertificateType},
		{name: "somebody else's name", args: changed("-n", "bert"), want: policies.CertificatePrincipal},
		{name: "no principals", args: changed("-n", ""), want: policies.CertificatePrincipal},
		{name: "a pattern beside the name", args: changed("-n", "anna,*"), want: policies.CertificatePrincipal},
		{name: "root beside the name", args: changed("-n", "anna,root"), want: policies.CertificatePrincipal},
		{name: "force-command", args: changed("-O", "force-command=/bin/true"), want: policies.CertificateOption},
		{name: "unknown critical option", args: changed("-O", "critical:x@example.com=y"), want: policies.CertificateOption},
		{name: "no-touch-required, touched", args: changed("-O", "no-touch-required"), want: policies.CertificateOption},
		{name: "no-touch-required, not touched", args: changed("-O", "no-touch-required"), want: policies.CertificateOption,
			key: func(f *fixture) ssh.Signer { return f.anna.Signer(softkey.Never) }},
		{name: "not touched", args: goodCertificate, want: keyNoTouch, key: func(f *fixture) ssh.Signer { return f.anna.Signer(softkey.Never) }},
		{name: "no forwarding", args: changed("-O", "no-port-forwarding"), want: policies.CertificateOption},
		{name: "verify-required", args: changed("-O", "verify-required"), want: policies.KeyNoUserVerification},
		{name: "no source", args: changed("-O", ""), want: policies.CertificateSource},
		{name: "another source", args: changed("-O", "", "-O", "source-address=192.0.2.0/24"), want: policies.CertificateSource},
		{name: "every source", args: changed("-O", "", "-O", "source-address=0.0.0.0/0"), want: policies.CertificateSource},
		{name: "for ever", args: changed("-V", "always:forever"), want: policies.CertificateLifetime},
		{name: "too long", args: changed("-V", "-1m:+2d"), want: policies.CertificateLifetime},
		{name: "expired", args: changed("-V", "-2h:-1h"), want: policies.CertificateExpired},
		{name: "early", args: changed("-V", "+1h:+2h"), want: policies.CertificateEarly},
		{name: "key of bert", args: goodCertificate, want: policies.CertificateKeyUnknown, key: func(f *fixture) ssh.Signer { return f.bert.Signer(softkey.Always) }},
		{name: "software key", args: goodCertificate, want: policies.KeyNotHardware, key: func(*fixture) ssh.Signer { return software }},
		{name: "revoked by serial", args: goodCertificate, want: policies.CertificateRevoked, before: func(f *fixture) { f.revoke("serial: 5-9") }},
		{name: "revoked by ID", args: goodCertificate, want: policies.CertificateRevoked, before: func(f *fixture) { f.revoke("id: anna's laptop") }},
		{name: "authority revoked", args: goodCertificate, want: policies.CertificateRevoked, before: func(f *fixture) {
			f.revoke("key: " + f.policy.Certificates.Authorities[0])
		}},
		{name: "key revoked", args: goodCertificate, want: policies.CertificateRevoked, before: func(f *fixture) {
			f.revoke("sha256: " + f.anna.Authorized())
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t)
			f.authority()
			if test.before != nil {
				test.before(f)
			}
			f.writeBundle(2)
			f.start()
			key := f.anna.Signer(softkey.Always)
			if test.key != nil {
				key = test.key(f)
			}
			if client, err := f.client("anna", f.certify(key, test.args...)); err == nil {
				client.Close()
				t.Error("logged in")
			}
			if r := f.closing(); r.Outcome != "refused" || r.Reason != test.want {
				t.Errorf("got %s, %s (%s), want refused, %s", r.Outcome, r.Reason, r.Detail, test.want)
			}
		})
	}
}

// revoke puts a list, made by ssh-keygen for the user CA, into the policy.
func (f *fixture) revoke(specification string) {
	f.t.Helper()
	f.write(f.path("spec"), []byte(specification+"\n"), 0o600)
	f.keygen("-k", "-f", "list", "-s", "user_ca.pub", "spec")
	var err error
	if f.policy.Certificates.KRL, err = policies.NewRevocations(f.read("list")); err != nil {
		f.t.Fatal(err)
	}
}

// A certificate whose authority did not sign it, or not these words, is refused, whatever it says.
func TestForgedCertificate(t *testing.T) {
	f := newFixture(t)
	f.authority()
	f.writeBundle(2)
	f.start()
	for name, forge := range map[string]func(*ssh.Certificate){
		"another word": func(c *ssh.Certificate) { c.KeyId = "anna's desk" },
		"a key of a type that may not sign": func(c *ssh.Certificate) {
			private, err := rsa.GenerateKey(rand.Reader, 2048)
			if err != nil {
				t.Fatal(err)
			}
			ca, err := ssh.NewSignerFromKey(private)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.SignCert(rand.Reader, ca); err != nil {
				t.Fatal(err)
			}
		},
		"another key": func(c *ssh.Certificate) { c.Key = f.bert.Public() },
		"signed by its own key, in the authority's name": func(c *ssh.Certificate) {
			ca := c.SignatureKey
			if err := c.SignCert(rand.Reader, newSigner(t)); err != nil {
				t.Fatal(err)
			}
			c.SignatureKey = ca
		},
	} {
		signer := f.certify(f.anna.Signer(softkey.Always), goodCertificate...)
		certificate := *signer.PublicKey().(*ssh.Certificate)
		forge(&certificate)
		if facts := certificateFacts(&certificate); facts.Signed {
			t.Errorf("%s: the signature verifies", name)
		}
		forged := claimed{&certificate, f.anna.Signer(softkey.Always)}
		if bytes.Equal(certificate.Key.Marshal(), f.bert.Public().Marshal()) {
			forged.Signer = f.bert.Signer(softkey.Always)
		}
		if client, err := f.client("anna", forged); err == nil {
			client.Close()
			t.Errorf("%s: logged in", name)
		}
		if r := f.closing(); r.Reason != policies.CertificateAuthorityUnknown {
			t.Errorf("%s: got %s (%s)", name, r.Reason, r.Detail)
		}
		f.server.penalties.clear(network(netip.MustParseAddr("127.0.0.1")))
	}
}

// claimed signs with one key and offers a certificate.
type claimed struct {
	certificate *ssh.Certificate
	ssh.Signer
}

func (c claimed) PublicKey() ssh.PublicKey { return c.certificate }

// A revocation cuts those who are in, like every other policy.
func TestRevokedKey(t *testing.T) {
	f := newFixture(t)
	f.authority()
	f.writeBundle(2)
	f.start()
	f.login("anna", f.anna.Signer(softkey.Always))
	f.revoke("key: " + f.anna.Authorized())
	f.policy.Version++
	f.writeBundle(2)
	f.reload <- os.Interrupt
	if r := f.closing(); r.Outcome != "accepted" || r.Ended != endPolicy || r.Reason != policies.KeyRevoked {
		t.Errorf("live session: %+v", r)
	}
	if client, err := f.client("anna", f.anna.Signer(softkey.Always)); err == nil {
		client.Close()
		t.Error("logged in with a revoked key")
	}
	if r := f.closing(); r.Reason != policies.KeyRevoked {
		t.Errorf("got %s (%s)", r.Reason, r.Detail)
	}
}

func TestUserVerificationRequired(t *testing.T) {
	f := newFixture(t)
	f.policy.SSH.VerifyRequired = true
	for i := range f.policy.Engineers {
		f.policy.Engineers[i].Keys[0].Evidence = "test:softkey+uv"
	}
	f.authority()
	f.writeBundle(2)
	f.start()
	f.hangUp(f.login("anna", f.anna.Signer(softkey.Verified)))
	if r := f.closing(); r.Outcome != "accepted" || r.Evidence != "test:softkey+uv" || !r.Test {
		t.Errorf("record: %+v", r)
	}
	f.hangUp(f.login("anna", f.certify(f.anna.Signer(softkey.Verified), changed("-O", "verify-required")...)))
	if r := f.closing(); r.Outcome != "accepted" {
		t.Errorf("a certificate that asks for it: %+v", r)
	}
	// Evidence without it does not even load; one that was accepted before is refused at login.
	f.policy.SSH.VerifyRequired = false
	f.policy.Engineers[0].Keys[0].Evidence = "test:softkey"
	live := f.server.ruling.Load()
	changedRuling := *live
	b := *live.bundle
	b.Policy = f.policy
	b.Policy.SSH.VerifyRequired = true
	changedRuling.bundle = &b
	f.server.ruling.Store(&changedRuling)
	if client, err := f.client("anna", f.anna.Signer(softkey.Verified)); err == nil {
		client.Close()
		t.Error("logged in without evidence of user verification")
	}
	if r := f.closing(); r.Reason != policies.KeyNoUserVerification {
		t.Errorf("got %s (%s)", r.Reason, r.Detail)
	}
}

// TestRobot has a software key log in without a touch, from its address alone, to its host alone.
func TestRobot(t *testing.T) {
	f := newFixture(t)
	key := newSigner(t)
	f.fleet.Servers = append(f.fleet.Servers, inventory.Server{Name: "web-1", Role: inventory.RoleHost, Address: netip.MustParsePrefix("10.77.0.31/32")},
		inventory.Server{Name: "web-2", Role: inventory.RoleHost, Address: netip.MustParsePrefix("10.77.0.32/32")})
	f.policy.Robots = []policies.Robot{{Name: "deploy", Public: authorized(key.PublicKey()), Source: netip.MustParsePrefix("127.0.0.1/32"),
		Servers: []string{"web-1"}, Ports: []uint16{22}, Commands: []string{"uptime"}}}
	f.policy.SSH.MaxPerRobot = 1
	f.writeBundle(2)
	f.target("10.77.0.31:22", echo)
	f.start()
	client := f.login("deploy", key)
	if login := string(f.next(eventLogin).Record); !strings.Contains(login, `"identity":"robot"`) || !strings.Contains(login, `"test":false`) {
		t.Errorf("login record: %s", login)
	}
	if second, err := f.client("deploy", key); err == nil {
		second.Close()
		t.Error("logged in more often than its limit")
	}
	if r := f.closing(); r.Reason != robotFull || r.Identity != "robot" {
		t.Errorf("got %+v", r)
	}
	conn, err := client.Dial("tcp", "web-1:22")
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	for _, to := range []string{"se-1:22", "web-2:22", "web-1:23"} {
		if conn, err := client.Dial("tcp", to); err == nil {
			conn.Close()
			t.Errorf("reached %s", to)
		}
	}
	f.hangUp(client)
	r := f.closing()
	if r.Identity != "robot" || len(r.Refused) != 3 || r.Refused[0].Reason != policies.RobotNotToVPN || r.Refused[1].Reason != policies.TargetNotGranted || r.Refused[2].Reason != policies.PortNotGranted {
		t.Errorf("record: %+v", r)
	}
	if opening := string(f.next(eventTarget).Record); !strings.Contains(opening, `"identity":"robot"`) {
		t.Errorf("target record: %s", opening)
	}
	for user, want := range map[string]policies.Reason{"anna": policies.KeyNotHardware, "deploy": policies.KeyUnknown} {
		signer := key
		if user == "deploy" {
			signer = newSigner(t)
		}
		if client, err := f.client(user, signer); err == nil {
			client.Close()
			t.Errorf("%s: logged in", user)
		}
		if r := f.closing(); r.Reason != want {
			t.Errorf("%s: got %s, want %s", user, r.Reason, want)
		}
	}
}

// TestOpenSSHCertificate is the machine's ssh with a certificate and the key in its agent.
func TestOpenSSHCertificate(t *testing.T) {
	f := newFixture(t)
	f.authority()
	f.writeBundle(2)
	f.target("10.77.0.11:22", echo)
	f.start()
	f.certify(f.anna.Signer(softkey.Always), goodCertificate...)
	cmd := f.openSSH(softkey.Always)("-o", "CertificateFile="+f.path("c-cert.pub"), "-W", "se-1:22", "bastion")
	cmd.Stdin = strings.NewReader("one day")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if got, err := cmd.Output(); err != nil || string(got) != "one day" {
		t.Fatalf("got %q, %v\n%s", got, err, stderr.Bytes())
	}
	if r := f.closing(); r.Outcome != "accepted" || r.Certificate == nil {
		t.Errorf("the key was taken, not the certificate: %+v\n%s", r, stderr.Bytes())
	}
}

// Nothing that the library is given ever waives a touch: no Permissions of ours have an extension, and a certificate that would is
// refused before its signature is looked at.
func TestTouchIsNeverWaived(t *testing.T) {
	f := newFixture(t)
	f.authority()
	f.writeBundle(2)
	f.start()
	ca, err := ssh.ParsePrivateKey(f.read("user_ca"))
	if err != nil {
		t.Fatal(err)
	}
	for _, extension := range []string{"permit-port-forwarding", noTouchRequired} {
		for _, option := range []string{"source-address", noTouchRequired} {
			c := &ssh.Certificate{Key: f.anna.Public(), CertType: ssh.UserCert, ValidPrincipals: []string{"anna"}, ValidAfter: uint64(time.Now().Add(-time.Minute).Unix()),
				ValidBefore: uint64(time.Now().Add(time.Hour).Unix()), Permissions: ssh.Permissions{Extensions: map[string]string{extension: ""}, CriticalOptions: map[string]string{option: "127.0.0.1"}}}
			if err := c.SignCert(rand.Reader, ca); err != nil {
				t.Fatal(err)
			}
			v := &visit{server: f.server, source: netip.MustParseAddrPort("127.0.0.1:1"), ruling: f.server.ruling.Load()}
			permissions, err := v.offered(nil, c)
			if waives := extension == noTouchRequired || option == noTouchRequired; (err != nil) != waives {
				t.Errorf("%s, %s: got %v", extension, option, err)
			}
			if permissions != nil && (len(permissions.Extensions) > 0 || len(permissions.CriticalOptions) > 0) {
				t.Errorf("%s, %s: permissions %+v", extension, option, permissions)
			}
			// Without the touch nobody is in, whatever the certificate says.
			signer, err := ssh.NewCertSigner(c, f.anna.Signer(softkey.Never))
			if err != nil {
				t.Fatal(err)
			}
			if client, err := f.client("anna", signer); err == nil {
				client.Close()
				t.Errorf("%s, %s: logged in without a touch", extension, option)
			}
			if r := f.closing(); r.Reason != keyNoTouch && r.Reason != policies.CertificateOption {
				t.Errorf("%s, %s: %s", extension, option, r.Reason)
			}
			f.server.penalties.clear(network(netip.MustParseAddr("127.0.0.1")))
		}
	}
}

// FuzzCertificate reads user certificates from the wire. Whatever one says, it lets nobody in whose key is not enrolled, and nothing
// but what its authority signed counts as signed.
func FuzzCertificate(f *testing.F) {
	seed := func(change func(*ssh.Certificate)) {
		key, err := softkey.New(constant{})
		if err != nil {
			f.Fatal(err)
		}
		c := &ssh.Certificate{Key: key.Public(), CertType: ssh.UserCert, ValidPrincipals: []string{"anna"}, ValidBefore: 1 << 40,
			Permissions: ssh.Permissions{Extensions: map[string]string{"permit-port-forwarding": ""}, CriticalOptions: map[string]string{"source-address": "127.0.0.1"}}}
		change(c)
		if err := c.SignCert(rand.Reader, newSigner(f)); err != nil {
			f.Fatal(err)
		}
		f.Add(c.Marshal())
	}
	seed(func(*ssh.Certificate) {})
	seed(func(c *ssh.Certificate) { c.ValidPrincipals = nil })
	seed(func(c *ssh.Certificate) { c.Extensions[noTouchRequired] = "" })
	seed(func(c *ssh.Certificate) { c.CriticalOptions["force-command"] = "id" })
	seed(func(c *ssh.Certificate) { c.Key = newSigner(f).PublicKey() })
	f.Fuzz(func(t *testing.T, data []byte) {
		key, err := ssh.ParsePublicKey(data)
		if err != nil {
			return
		}
		policy := policies.Policy{Expires: time.Now().Add(time.Hour), SSH: policies.SSH{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}}}
		policy.Engineers = []policies.Engineer{{Name: "anna", Keys: []policies.Key{{Public: "sk-ssh-ed25519@openssh.com AAAA", Evidence: "test:x"}}}}
		if c, ok := key.(*ssh.Certificate); ok {
			policy.Certificates.Authorities = []string{authorized(c.SignatureKey)}
			facts := certificateFacts(c)
			if facts.Signed {
				altered := *c
				altered.KeyId += "x"
				if signedByAuthority(&altered) {
					t.Error("another certificate counts as signed")
				}
			}
		}
		cred := attest(policy, "anna", key)
		login := policies.Login{Source: netip.MustParseAddr("127.0.0.1"), User: "anna", Key: cred.public, Certificate: cred.certificate}
		if v := policy.DecideLogin(login, policies.Statements{}, time.Now()); v.Allow || v.Reason == "" {
			t.Errorf("got %+v", v)
		}
	})
}

// TestPenaltiesTellNothing tries names that are there and names that are not, with keys that are nobody's: each failure costs the same.
func TestPenaltiesTellNothing(t *testing.T) {
	f := newFixture(t)
	robot := newSigner(t)
	f.authority()
	f.fleet.Servers = append(f.fleet.Servers, inventory.Server{Name: "web-1", Role: inventory.RoleHost, Address: netip.MustParsePrefix("10.77.0.31/32")})
	f.policy.Robots = []policies.Robot{{Name: "deploy", Public: authorized(robot.PublicKey()), Source: netip.MustParsePrefix("127.0.0.2/32"),
		Servers: []string{"web-1"}, Ports: []uint16{22}, Commands: []string{"uptime"}}}
	f.policy.Engineers[1].Allow = []netip.Prefix{netip.MustParsePrefix("127.0.0.3/32")} // bert, who is elsewhere
	f.writeBundle(2)
	f.start()
	stranger, err := softkey.New(constant{})
	if err != nil {
		t.Fatal(err)
	}
	f.keygen("-t", "ed25519", "-N", "", "-f", "other_ca")
	reasons := map[policies.Reason]bool{}
	for _, user := range []string{"anna", "bert", "deploy", "mallory", ""} {
		for _, signer := range []ssh.Signer{stranger.Signer(softkey.Always), newSigner(t), f.certify(stranger.Signer(softkey.Always), changed("-s", "other_ca")...)} {
			if client, err := f.client(user, signer); err == nil {
				client.Close()
				t.Fatalf("%s: logged in", user)
			}
			r := f.closing()
			reasons[r.Reason] = true
			if got := penaltyCosts[r.Reason]; got != provenCost {
				t.Errorf("%s: %s costs %s, want %s", user, r.Reason, got, provenCost)
			}
			f.server.penalties.clear(network(netip.MustParseAddr("127.0.0.1")))
		}
	}
	if len(reasons) < 4 {
		t.Errorf("only %v were seen", reasons)
	}
}

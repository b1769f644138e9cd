package bastion

import (
	"encoding/json"
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/hint"
	"mayfly/policies"
	"mayfly/policies/bundle"
	"mayfly/policies/witness"
	"mayfly/testenv/softkey"
)

// newPolicy writes the bundle and waits until it is in force.
func (f *fixture) newPolicy() policyRecord {
	f.t.Helper()
	f.writeBundle(2)
	return f.reloaded(func(r policyRecord) bool { return r.Version == f.policy.Version })
}

// reloaded asks for a reload and waits for the first record that is as wanted: the bastion looks at its files by itself as well,
// so that there may be one before, and one after that has nothing new.
func (f *fixture) reloaded(wanted func(policyRecord) bool) policyRecord {
	f.t.Helper()
	f.reload <- syscall.SIGHUP
	for {
		var r policyRecord
		if err := json.Unmarshal(f.next(eventPolicy).Record, &r); err != nil {
			f.t.Fatal(err)
		}
		if wanted(r) {
			return r
		}
	}
}

func keptOld(r policyRecord) bool { return r.Outcome == "kept_old" }

// TestPolicyCutsSessions takes away, one after the other, a port, an engineer, and an address.
func TestPolicyCutsSessions(t *testing.T) {
	f := newFixture(t)
	f.target("10.77.0.11:22", echo)
	f.target("10.77.0.12:22", echo)
	f.target("10.77.0.13:22", echo)
	f.start()
	anna := f.login("anna", f.anna.Signer(softkey.Always))
	kept, err := anna.Dial("tcp", "se-1:22")
	if err != nil {
		t.Fatal(err)
	}
	lost, err := anna.Dial("tcp", "se-2:22")
	if err != nil {
		t.Fatal(err)
	}
	bert := f.login("bert", f.bert.Signer(softkey.Always))
	if _, err := bert.Dial("tcp", "nl-1:22"); err != nil {
		t.Fatal(err)
	}

	f.policy.Version, f.policy.Grants[0].Servers = 2, []string{"se-1"}
	if r := f.newPolicy(); r.Outcome != "in_force" || r.Version != 2 || r.Cut != 1 {
		t.Errorf("record: %+v", r)
	}
	if _, err := io.Copy(io.Discard, lost); err != nil {
		t.Errorf("the target that was taken away: %v", err)
	}
	io.WriteString(kept, "x")
	if _, err := io.ReadFull(kept, make([]byte, 1)); err != nil {
		t.Errorf("the target that was kept: %v", err)
	}

	f.policy.Version = 3
	f.policy.Engineers[1].Keys[0].Public = softwareKey(t)
	if r := f.newPolicy(); r.Cut != 1 {
		t.Errorf("record: %+v", r)
	}
	if r := f.closing(); r.User != "bert" || r.Ended != endPolicy || r.Reason != policies.KeyUnknown || len(r.Targets) != 1 || r.Targets[0].Ended != endPolicy {
		t.Errorf("record: %+v", r)
	}
	bert.Wait()

	f.policy.Version, f.policy.SSH.Allow = 4, []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}
	if r := f.newPolicy(); r.Cut != 1 {
		t.Errorf("record: %+v", r)
	}
	r := f.closing()
	if r.User != "anna" || r.Ended != endPolicy || r.Reason != policies.AddressNotListed || len(r.Targets) != 2 {
		t.Errorf("record: %+v", r)
	}
	for _, target := range r.Targets {
		want := policies.AddressNotListed
		if target.Server == "se-2" {
			want = policies.TargetNotGranted
		}
		if target.Reason != want || target.Ended != endPolicy {
			t.Errorf("target: %+v, want %s", target, want)
		}
	}
	// The kernel's filter changed with it.
	if conn, err := dialFrom(t.Context(), "127.0.0.2", f.address); err != nil {
		t.Error(err)
	} else {
		conn.Close()
	}
}

// softwareKey is another key of a hardware key's type.
func softwareKey(t *testing.T) string {
	t.Helper()
	key, err := softkey.New(constant{})
	if err != nil {
		t.Fatal(err)
	}
	return key.Authorized()
}

// TestBadPolicyKeepsTheOld writes bundles that must not take effect, while an engineer is in and others come.
func TestBadPolicyKeepsTheOld(t *testing.T) {
	for _, test := range []struct {
		name  string
		spoil func(*fixture)
		want  string
	}{
		{"one signature", func(f *fixture) { f.policy.Version = 6; f.writeBundle(1) }, bundle.Unsigned},
		{"older version", func(f *fixture) { f.policy.Version = 4; f.writeBundle(2) }, bundle.Older},
		{"altered", func(f *fixture) {
			served := f.config.Bundle
			f.policy.Version, f.config.Bundle = 6, f.path("good.json")
			f.writeBundle(2)
			data, err := os.ReadFile(f.config.Bundle)
			if err != nil {
				f.t.Fatal(err)
			}
			if err := os.Rename(f.config.Bundle+".sig", served+".sig"); err != nil {
				f.t.Fatal(err)
			}
			f.config.Bundle = served
			f.write(f.config.Bundle, []byte(strings.Replace(string(data), `"anna"`, `"anne"`, 1)), 0o644)
		}, bundle.Unsigned},
		{"gone", func(f *fixture) { os.Remove(f.config.Bundle) }, "reading policy bundle"},
		{"signatures gone", func(f *fixture) { os.Remove(f.config.Bundle + ".sig") }, bundle.Unsigned},
		{"host certificate of another key", func(f *fixture) {
			f.writeCertificate(ssh.Certificate{Key: f.hostCA.PublicKey(), CertType: ssh.HostCert, ValidPrincipals: []string{"x"}, ValidBefore: ssh.CertTimeInfinity})
		}, "another key"},
		{"host certificate of another machine", func(f *fixture) {
			f.writeCertificate(ssh.Certificate{Key: f.hostKey.PublicKey(), CertType: ssh.HostCert, ValidPrincipals: []string{"other.internal"}, ValidBefore: ssh.CertTimeInfinity})
		}, "names no bastion"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t)
			f.policy.Version = 5
			f.writeBundle(2)
			f.start()
			client := f.login("anna", f.anna.Signer(softkey.Always))
			test.spoil(f)
			if r := f.reloaded(keptOld); r.Version != 5 || !strings.Contains(r.Detail, test.want) {
				t.Errorf("record: %+v, want %s", r, test.want)
			}
			if _, _, err := client.SendRequest("keepalive@openssh.com", true, nil); err != nil {
				t.Errorf("the session that was in: %v", err)
			}
			f.login("bert", f.bert.Signer(softkey.Always))
		})
	}
}

// TestBadCertificateHoldsUpNoPolicy takes a key away while the host certificate's file is bad.
func TestBadCertificateHoldsUpNoPolicy(t *testing.T) {
	f := newFixture(t)
	f.start()
	client := f.login("bert", f.bert.Signer(softkey.Always))
	f.write(f.config.HostCertificate, []byte("junk"), 0o644)
	f.policy.Version = 2
	f.policy.Engineers[1].Keys[0].Public = softwareKey(t)
	if r := f.newPolicy(); r.Outcome != "kept_old" || r.Version != 2 || r.Cut != 1 || !strings.Contains(r.Detail, "host certificate") {
		t.Errorf("record: %+v", r)
	}
	client.Wait()
	f.login("anna", f.anna.Signer(softkey.Always)) // under the old certificate, which is good
}

// TestUnrememberedPolicyIsNotTaken makes it impossible to write the version down: record and fact are the old policy's, with the
// new host certificate, until it can be.
func TestUnrememberedPolicyIsNotTaken(t *testing.T) {
	f := newFixture(t)
	f.start()
	client := f.login("bert", f.bert.Signer(softkey.Always))
	seen := versionFile(f.config)
	if err := errors.Join(os.Remove(seen), os.MkdirAll(filepath.Join(seen, "in the way"), 0o700)); err != nil {
		t.Fatal(err)
	}
	f.writeHostKeys(time.Now().Add(3 * time.Hour))
	f.policy.Version = 2
	f.policy.Engineers[1].Keys[0].Public = softwareKey(t)
	f.writeBundle(2)
	r := f.reloaded(func(r policyRecord) bool { return strings.Contains(r.Detail, "remembering") })
	if r.Outcome != "kept_old" || r.Version != 1 || r.Cut != 0 || !strings.Contains(r.Detail, "remembering policy version 2") {
		t.Errorf("record: %+v", r)
	}
	if got := f.server.ruling.Load().bundle.Version; got != 1 {
		t.Errorf("policy %d is in force, want 1 as the record says", got)
	}
	if r.CertificateExpires.Before(time.Now().Add(2 * time.Hour)) {
		t.Errorf("the new host certificate was held up: %+v", r)
	}
	if _, _, err := client.SendRequest("keepalive@openssh.com", true, nil); err != nil {
		t.Errorf("the session that was in: %v", err)
	}
	if err := os.RemoveAll(seen); err != nil {
		t.Fatal(err)
	}
	if r := f.newPolicy(); r.Outcome != "in_force" || r.Cut != 1 {
		t.Errorf("record: %+v", r)
	}
	client.Wait()
}

// TestChangedFilesAreNoticed waits for the poll instead of a signal.
func TestChangedFilesAreNoticed(t *testing.T) {
	f := newFixture(t)
	f.start()
	f.policy.Version = 2
	f.writeBundle(2)
	var r policyRecord
	if err := json.Unmarshal(f.next(eventPolicy).Record, &r); err != nil || r.Version != 2 || r.Outcome != "in_force" {
		t.Errorf("record: %+v, %v", r, err)
	}
	f.writeHostKeys(time.Now().Add(3 * time.Hour))
	if err := json.Unmarshal(f.next(eventPolicy).Record, &r); err != nil || r.CertificateExpires.Before(time.Now().Add(2*time.Hour)) {
		t.Errorf("record: %+v, %v", r, err)
	}
}

// TestUnreadableFiles: a mend by chmod shows, what could not be read is read again although nothing of it changed, and the hint says what lets
// it be read.
func TestUnreadableFiles(t *testing.T) {
	f := newFixture(t)
	before, statement := f.config.stamp(), stampOf(f.config.Bundle)
	if err := os.Chmod(f.config.Bundle, 0o640); err != nil {
		t.Fatal(err)
	}
	if f.config.stamp() == before || stampOf(f.config.Bundle) == statement {
		t.Error("a chmod was not seen")
	}
	now := time.Now()
	denied := &os.PathError{Op: "open", Path: "bundle.json", Err: syscall.EACCES}
	for _, tt := range []struct {
		err   error
		retry bool
		hint  string
	}{
		{denied, true, "chmod 644 bundle.json"},
		{&os.PathError{Op: "open", Path: "bundle.json", Err: syscall.EMFILE}, true, "tried again"},
		{&os.PathError{Op: "open", Path: "bundle.json", Err: syscall.ENOENT}, false, "make it"},
		{&bundle.Refusal{Reason: bundle.Unsigned, Err: errors.New("x")}, false, "make it"},
	} {
		if at := retryAt(hint.New(tt.err, "x"), now); at.IsZero() == tt.retry {
			t.Errorf("%v: again at %v", tt.err, at)
		}
		if got := readHint(tt.err, "bundle.json", "make it"); !strings.Contains(got, tt.hint) {
			t.Errorf("%v: hint %q", tt.err, got)
		}
	}
}

// TestHintsOfUnsigned: what the hint says of signatures that are missing, too few, or of other bytes.
func TestHintsOfUnsigned(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(f *fixture)
		want  string
	}{
		{"none", func(f *fixture) { os.Remove(f.config.Bundle + ".sig") }, "copy the .sig as well"},
		{"one", func(f *fixture) { f.writeBundle(1) }, "adds an approver's signature"},
		{"edited", func(f *fixture) { f.write(f.config.Bundle, append(f.read("bundle.json"), ' '), 0o644) }, "of other bytes"},
	} {
		f := newFixture(t)
		tt.spoil(f)
		if _, err := newServer(f.config, nil, nil, time.Now()); err == nil || !strings.Contains(hint.Of(err), tt.want) || !strings.Contains(err.Error(), bundle.Unsigned) {
			t.Errorf("%s: %v, hint %q, want %q", tt.name, err, hint.Of(err), tt.want)
		}
	}
}

// TestNoWayBack starts again with an older bundle than was in force.
func TestNoWayBack(t *testing.T) {
	f := newFixture(t)
	f.policy.Version = 7
	f.writeBundle(2)
	if err := os.Mkdir(f.config.Audit, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := rememberVersion(f.config, seenPolicy{version: 8}); err != nil {
		t.Fatal(err)
	}
	_, err := newServer(f.config, nil, nil, time.Now())
	var refusal *bundle.Refusal
	if !errors.As(err, &refusal) || refusal.Reason != bundle.Older || hint.Of(err) == "" {
		t.Errorf("got %v, hint %q, want %s", err, hint.Of(err), bundle.Older)
	}
}

// TestExpiredCertificateIsNotServed sees connections refused once the host certificate has run out.
func TestExpiredCertificateIsNotServed(t *testing.T) {
	f := newFixture(t)
	f.start()
	r := *f.server.ruling.Load()
	keys := *r.keys
	expired := *keys.certificate
	expired.ValidBefore = uint64(time.Now().Add(-time.Second).Unix())
	keys.certificate, r.keys = &expired, &keys
	f.server.ruling.Store(&r)
	if client, err := f.client("anna", f.anna.Signer(softkey.Always)); err == nil {
		client.Close()
		t.Error("logged in")
	}
	if r := f.closing(); r.Reason != certificateExpired {
		t.Errorf("record: %+v", r)
	}
}

// TestRefusedAtStart checks what must not be served, each with a hint.
func TestRefusedAtStart(t *testing.T) {
	for _, test := range []struct {
		name  string
		spoil func(*fixture)
		want  string
	}{
		{"expired host certificate", func(f *fixture) { f.writeHostKeys(time.Now().Add(-time.Second)) }, "expired"},
		{"no host certificate", func(f *fixture) { os.Remove(f.config.HostCertificate) }, "host certificate"},
		{"a user's certificate", func(f *fixture) {
			f.writeCertificate(ssh.Certificate{Key: f.hostKey.PublicKey(), CertType: ssh.UserCert, ValidPrincipals: []string{"x"}, ValidBefore: ssh.CertTimeInfinity})
		}, "not a host certificate"},
		{"a certificate for every host", func(f *fixture) {
			f.writeCertificate(ssh.Certificate{Key: f.hostKey.PublicKey(), CertType: ssh.HostCert, ValidBefore: ssh.CertTimeInfinity})
		}, "names no host"},
		{"a certificate of another machine", func(f *fixture) {
			f.writeCertificate(ssh.Certificate{Key: f.hostKey.PublicKey(), CertType: ssh.HostCert, ValidPrincipals: []string{"other.internal"}, ValidBefore: ssh.CertTimeInfinity})
		}, "names no bastion of fleet lab: it is for other.internal"},
		{"a host certificate by the users' authority", func(f *fixture) {
			f.policy.Certificates.Authorities = []string{authorized(f.hostCA.PublicKey())}
			f.writeBundle(2)
		}, "for users' certificates"},
		{"world-readable host key", func(f *fixture) { os.Chmod(f.config.HostKey, 0o644) }, "0644"},
		{"no host key", func(f *fixture) { os.Remove(f.config.HostKey) }, "host key"},
		{"no bundle", func(f *fixture) { os.Remove(f.config.Bundle) }, "policy bundle"},
		{"one signature", func(f *fixture) { f.writeBundle(1) }, bundle.Unsigned},
		{"no trust", func(f *fixture) { os.Remove(f.config.Trust) }, "trust policy"},
		{"address of another machine", func(f *fixture) { f.config.Listen = netip.MustParseAddrPort("192.0.2.1:22") }, "listening on 192.0.2.1:22"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t)
			test.spoil(f)
			s, err := newServer(f.config, nil, nil, time.Now())
			if err == nil {
				err = s.serve(t.Context(), nil, nil)
			}
			if err == nil || !strings.Contains(err.Error(), test.want) || hint.Of(err) == "" {
				t.Errorf("got %v, hint %q, want %q and a hint", err, hint.Of(err), test.want)
			}
		})
	}
}

// TestAlgorithmsAreNeverEmpty pins what is offered at each level.
func TestAlgorithmsAreNeverEmpty(t *testing.T) {
	f := newFixture(t)
	keys, err := loadHostKeys(f.config.HostKey, f.config.HostCertificate, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for level, kex := range map[policies.Level]string{
		"pq-only":      "mlkem768x25519-sha256",
		"pq-preferred": "mlkem768x25519-sha256 curve25519-sha256 curve25519-sha256@libssh.org",
	} {
		c, err := baseConfig(policies.Policy{SSH: policies.SSH{Level: level}}, keys)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(c.KeyExchanges, " "); got != kex {
			t.Errorf("%s: key exchanges %s, want %s", level, got, kex)
		}
		if got, want := strings.Join(c.Ciphers, " "), "aes256-gcm@openssh.com aes128-gcm@openssh.com"; got != want {
			t.Errorf("%s: ciphers %s, want %s", level, got, want)
		}
		if c.RekeyThreshold != 1<<30 {
			t.Errorf("%s: new keys after %d bytes, want 1 GiB", level, c.RekeyThreshold)
		}
		if len(c.MACs) == 0 || len(c.PublicKeyAuthAlgorithms) == 0 || c.MaxAuthTries <= 0 || c.NoClientAuth || c.PasswordCallback != nil || c.KeyboardInteractiveCallback != nil {
			t.Errorf("%s: %+v", level, c)
		}
	}
	if _, err := baseConfig(policies.Policy{}, keys); err == nil {
		t.Error("no level was taken for one")
	}
	own := policies.SSH{Level: policies.PQOnly, Ciphers: []string{"aes128-gcm@openssh.com"}, HostKeys: []string{"ssh-ed25519"}, UserKeys: []string{"sk-ssh-ed25519@openssh.com"}}
	c, err := baseConfig(policies.Policy{SSH: own}, keys)
	if err != nil || len(c.Ciphers) != 1 || c.Ciphers[0] != "aes128-gcm@openssh.com" || len(c.KeyExchanges) != 1 || slices.Contains(c.PublicKeyAuthAlgorithms, "sk-ecdsa-sha2-nistp256@openssh.com") {
		t.Errorf("a policy's own lists: %+v, %v", c, err)
	}
	for name, bad := range map[string]policies.SSH{
		"empty": {Level: policies.PQOnly, Ciphers: []string{}}, "weak": {Level: policies.PQOnly, MACs: []string{"hmac-sha1"}}, "unknown": {Level: policies.PQOnly, HostKeys: []string{"x"}},
	} {
		if c, err := baseConfig(policies.Policy{SSH: bad}, keys); err == nil {
			t.Errorf("%s: got %+v", name, c)
		}
	}
}

// TestPQOnlyClientWithoutIt sees a client without a post-quantum key exchange refused at pq-only.
func TestPQOnlyClientWithoutIt(t *testing.T) {
	f := newFixture(t)
	f.policy.SSH.Level = "pq-only"
	f.writeBundle(2)
	f.start()
	config := &ssh.ClientConfig{User: "anna", HostKeyCallback: f.checkHost(), Config: ssh.Config{KeyExchanges: []string{"curve25519-sha256"}}}
	if _, err := ssh.Dial("tcp", f.address, config); err == nil {
		t.Error("keys exchanged")
	}
	if r := f.closing(); r.Reason != noCommonAlgorithm {
		t.Errorf("record: %+v", r)
	}
	f.login("anna", f.anna.Signer(softkey.Always))
}

// TestStopClosesEverything stops with a session open: its record is written and nothing is left.
func TestStopClosesEverything(t *testing.T) {
	f := newFixture(t)
	f.target("10.77.0.11:22", echo)
	t.Cleanup(func() { // after the bastion has stopped
		if r := f.closing(); r.Ended != endStopping || len(r.Targets) != 1 || r.Targets[0].Ended != endStopping {
			t.Errorf("record: %+v", r)
		}
		f.next(eventStop)
	})
	f.start()
	client, err := f.client("anna", f.anna.Signer(softkey.Always))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Dial("tcp", "se-1:22"); err != nil {
		t.Fatal(err)
	}
	go client.Wait()
}

// TestAnotherFileOfTheVersion: of two signed bundles of one version the bastion takes the first, and remembers it over a restart.
func TestAnotherFileOfTheVersion(t *testing.T) {
	f := newFixture(t)
	f.start()
	anna := f.login("anna", f.anna.Signer(softkey.Always))
	f.policy.SSH.MaxChannels = 7
	f.writeBundle(2)
	var r policyRecord
	if err := json.Unmarshal(f.next(eventPolicy).Record, &r); err != nil || r.Outcome != "kept_old" || !strings.Contains(r.Detail, witness.Forked) {
		t.Errorf("record: %+v, %v", r, err)
	}
	if limit := f.server.ruling.Load().limits.MaxChannels; limit == 7 {
		t.Error("the other file is in force")
	}
	anna.Close()
	_, err := newServer(f.config, nil, nil, time.Now())
	var refusal *bundle.Refusal
	if !errors.As(err, &refusal) || refusal.Reason != witness.Forked {
		t.Errorf("after a restart: got %v, want %s", err, witness.Forked)
	}
	for text, want := range map[string]string{"1\n": "", "1 junk\n": "no hash", "x\n": "invalid syntax", "1 " + strings.Repeat("0", 64) + "\n": ""} {
		f.write(versionFile(f.config), []byte(text), 0o600)
		if p, err := seenVersion(f.config); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) || err == nil && p.version != 1 {
			t.Errorf("%q: got %+v, %v", text, p, err)
		}
	}
}

package bastion

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"mayfly/testenv/softkey"
)

// writeConfig writes the fixture's configuration as a file, with more at its end.
func (f *fixture) writeConfig(more string) string {
	f.t.Helper()
	c := f.config
	text := fmt.Sprintf("listen = %q\ntrust = %q\nbundle = %q\nhost_key = %q\nhost_certificate = %q\naudit = %q\ncontrol = %q\n",
		c.Listen, c.Trust, c.Bundle, c.HostKey, c.HostCertificate, c.Audit, f.path("control"))
	if len(c.Witnesses) > 0 {
		text += fmt.Sprintf("witnesses = [\"%s\"]\n", strings.Join(c.Witnesses, `", "`))
	}
	path := f.path("bastion.toml")
	f.write(path, []byte(text+more), 0o600)
	return path
}

// found fails unless there is such a finding.
func found(t *testing.T, d Diagnosis, check string, h Health, what string) {
	t.Helper()
	if !slices.ContainsFunc(d.Findings, func(f Finding) bool { return f.Check == check && f.Health == h && strings.Contains(f.What, what) }) {
		t.Errorf("no %s of %s with %q in %+v", h, check, what, d.Findings)
	}
	for _, f := range d.Findings {
		if f.Health != Healthy && f.Hint == "" {
			t.Errorf("no mend for %+v", f)
		}
	}
}

// TestDoctorOfWitnesses has one be silent, then both, and one know another version.
func TestDoctorOfWitnesses(t *testing.T) {
	f := newFixture(t)
	witnessed(f)
	f.publish(1)
	path := f.writeConfig("")
	found(t, Doctor(t.Context(), path, nil, time.Now()), "witnesses", Healthy, "confirm version 1")
	version, sum := f.witnesses[0].version, f.witnesses[0].sum
	f.witnesses[0].say(0, "")
	d := Doctor(t.Context(), path, nil, time.Now())
	found(t, d, "witnesses", Warn, "does not answer")
	found(t, d, "witnesses", Fails, "witness_missing")
	f.witnesses[0].say(version+1, sum)
	d = Doctor(t.Context(), path, nil, time.Now())
	found(t, d, "witnesses", Warn, fmt.Sprintf("knows version %d", version+1))
	found(t, d, "witnesses", Fails, "bundle_frozen")
}

// TestDoctorOfServing asks while a bastion serves: its penalties are known, and a policy that it did not take.
func TestDoctorOfServing(t *testing.T) {
	f := newFixture(t)
	f.config.Control = f.path("control")
	path := f.writeConfig("")
	f.start()
	who := &Suppose{From: netip.MustParseAddr("127.0.0.1"), User: "anna", Key: f.anna.Signer(softkey.Always).PublicKey(), Server: "se-1.lab.internal", Port: 22}
	d := Doctor(t.Context(), path, who, time.Now())
	found(t, d, "listen", Healthy, "a bastion serves on 127.0.0.1:")
	found(t, d, "login", Healthy, "allowed")
	found(t, d, "target", Healthy, "allowed")
	for range 4 {
		f.server.penalties.add(network(who.From), badSignature, time.Now())
	}
	found(t, Doctor(t.Context(), path, who, time.Now()), "from", Fails, "source_penalised")
	who.Server = "nl-1"
	found(t, Doctor(t.Context(), path, who, time.Now()), "target", Fails, "target_not_granted")
	who.Key = f.bert.Signer(softkey.Always).PublicKey()
	found(t, Doctor(t.Context(), path, who, time.Now()), "login", Fails, "key_unknown")
}

// TestDoctorOfTime looks at a policy that ends soon, at one that has ended, and at certificates that live too short and too long.
func TestDoctorOfTime(t *testing.T) {
	f := newFixture(t)
	path := f.writeConfig("")
	found(t, Doctor(t.Context(), path, nil, time.Now()), "policy", Warn, "ends in")
	found(t, Doctor(t.Context(), path, nil, f.policy.Expires.Add(time.Second)), "policy", Fails, "bundle_expired")
	f.writeHostKeys(time.Now().Add(time.Minute))
	found(t, Doctor(t.Context(), path, nil, time.Now()), "host_certificate", Warn, "ends in")
	f.writeHostKeys(time.Now().Add(48 * time.Hour))
	found(t, Doctor(t.Context(), path, nil, time.Now()), "host_certificate", Warn, "lasts until")
	f.writePrivateKeyOfAnother()
	found(t, Doctor(t.Context(), path, nil, time.Now()), "host_certificate", Fails, "is of another key")
	f.policy.Expires = time.Now().Add(30 * 24 * time.Hour).UTC().Truncate(time.Second)
	f.writeBundle(2)
	found(t, Doctor(t.Context(), path, nil, time.Now()), "policy", Healthy, "version 1")
}

// writePrivateKeyOfAnother leaves the certificate as it is.
func (f *fixture) writePrivateKeyOfAnother() {
	f.t.Helper()
	certificate, err := os.ReadFile(f.config.HostCertificate)
	if err != nil {
		f.t.Fatal(err)
	}
	f.writePrivateKey()
	f.write(f.config.HostCertificate, certificate, 0o644)
}

// TestDoctorOfRecordings has them on the audit log's file system, on one without room, and nowhere.
func TestDoctorOfRecordings(t *testing.T) {
	f := newSessionFixture(t)
	path := func(recordings string) string {
		return f.writeConfig(fmt.Sprintf("[session]\nca = %q\nhost_cas = %q\nrecordings = %q\n", f.config.Session.CA, f.config.Session.HostCAs, recordings))
	}
	found(t, Doctor(t.Context(), path(f.path("recordings")), nil, time.Now()), "recordings", Warn, "on the audit log's file system")
	found(t, Doctor(t.Context(), path("/proc"), nil, time.Now()), "recordings", Fails, "no session is recorded")
	found(t, Doctor(t.Context(), path(f.path("nowhere")), nil, time.Now()), "recordings", Fails, "no such file")
}

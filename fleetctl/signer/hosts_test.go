package signer

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/bastion"
	"mayfly/internal/pki"
	"mayfly/internal/renewal"
	"mayfly/policies/trust"
	"mayfly/rebuild/join"
)

func parseCertificate(t *testing.T, line string) *ssh.Certificate {
	t.Helper()
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		t.Fatal(err)
	}
	return key.(*ssh.Certificate)
}

// TestHostCertificatesAreShort: no SSH host certificate, of a server or of a bastion, is valid for more than MaxHostLife from its first
// second to its last, whatever was asked for.
func TestHostCertificatesAreShort(t *testing.T) {
	f := newFleet(t)
	s := offline(t, f)
	now := time.Now().UTC()
	bastionKey := newSSHSigner(t)
	check := func(what string, c *ssh.Certificate) {
		t.Helper()
		if life := time.Duration(c.ValidBefore-c.ValidAfter) * time.Second; life > MaxHostLife || life < MaxHostLife-2*time.Second {
			t.Errorf("%s: valid for %s", what, life)
		}
	}
	first, err := s.host(hostRequest{Bastion: "b1", HostKey: trust.FormatKey(bastionKey.PublicKey())}, now)
	if err != nil {
		t.Fatal(err)
	}
	check("bastion", parseCertificate(t, first.Certificate))
	request, err := renewal.Make(bastionKey, "lab", "b1", now)
	if err != nil {
		t.Fatal(err)
	}
	again, err := s.renewHost(request, now)
	if err != nil {
		t.Fatal(err)
	}
	check("renewed bastion", parseCertificate(t, again.Certificate))
	m := newMachine(t)
	signed, err := s.ticket(f.newTicket(t, 1), now)
	if err != nil {
		t.Fatal(err)
	}
	certs, err := s.admit(m.request(signed.Data, signed.Signature), now)
	if err != nil {
		t.Fatal(err)
	}
	check("server", parseCertificate(t, certs.Host))
	asked, err := s.hostCertificate(bastionKey.PublicKey(), []string{"b1"}, now, 7*24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	check("a week asked for", asked)
}

func TestRenewHostRefuses(t *testing.T) {
	f := newFleet(t)
	s := offline(t, f)
	now := time.Now().UTC()
	key, other := newSSHSigner(t), newSSHSigner(t)
	ask := func(s *server, k ssh.Signer, host string, at, now time.Time) error {
		t.Helper()
		r, err := renewal.Make(k, "lab", host, at)
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.renewHost(r, now)
		return err
	}
	if err := ask(s, key, "b1", now, now); reason(err) != join.HostUnknown {
		t.Errorf("before the key was ever certified: got %v, want %s", err, join.HostUnknown)
	}
	if _, err := s.host(hostRequest{Bastion: "b1", HostKey: trust.FormatKey(key.PublicKey())}, now); err != nil {
		t.Fatal(err)
	}
	at := now.Add(time.Second)
	if err := ask(s, key, "b1", at, now); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		key  ssh.Signer
		host string
		at   time.Time
		want string
	}{
		{"the same request", key, "b1", at, join.RequestUsed},
		{"an earlier one", key, "b1", at.Add(-time.Millisecond), join.RequestUsed},
		{"another key", other, "b1", at.Add(time.Second), join.HostUnknown},
		{"a server", key, "se-1", at.Add(time.Second), join.NameNotAllowed},
		{"no host", key, "", at.Add(time.Second), join.NameNotAllowed},
		{"an old one", key, "b1", now.Add(-2 * renewal.MaxSkew), join.TimeWrong},
		{"one of the future", key, "b1", now.Add(2 * renewal.MaxSkew), join.TimeWrong},
	} {
		if err := ask(s, tt.key, tt.host, tt.at, now); reason(err) != tt.want {
			t.Errorf("%s: got %v, want %s", tt.name, err, tt.want)
		}
	}
	forged, err := renewal.Make(key, "lab", "b1", at.Add(2*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	forged.Time = forged.Time.Add(time.Second)
	if _, err := s.renewHost(forged, now); reason(err) != join.ProofBad {
		t.Errorf("changed after signing: got %v, want %s", err, join.ProofBad)
	}
	// Whoever replaces a bastion's key ends the old one's renewals.
	if _, err := s.host(hostRequest{Bastion: "b1", HostKey: trust.FormatKey(other.PublicKey())}, now); err != nil {
		t.Fatal(err)
	}
	if err := ask(s, key, "b1", at.Add(3*time.Second), now); reason(err) != join.HostUnknown {
		t.Errorf("the replaced key: got %v, want %s", err, join.HostUnknown)
	}
	// A restart forgets no key.
	if s.bastions, err = openBastions(f.dir); err != nil {
		t.Fatal(err)
	}
	if err := ask(s, other, "b1", at.Add(4*time.Second), now); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	for i := range hostsPerHour + 1 {
		err = ask(s, other, "b1", at.Add(time.Duration(5+i)*time.Second), now)
	}
	if reason(err) != join.RateLimited {
		t.Errorf("asked %d times: got %v, want %s", hostsPerHour+2, err, join.RateLimited)
	}
}

// TestBastionRenews is a bastion that renews its own certificate over the controller's join port, with nothing but its host key.
func TestBastionRenews(t *testing.T) {
	f := newFleet(t)
	f.start(t)
	dir := t.TempDir()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	first, without, err := f.client.Host(t.Context(), "b1", trust.FormatKey(key.PublicKey()), nil)
	if err != nil || !without {
		t.Fatalf("without a request: %t, %v", without, err)
	}
	write := func(name string, data []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	c := bastion.Config{
		Listen: netip.MustParseAddrPort("127.0.0.2:22"), Trust: filepath.Join(f.dir, "trust.json"), Bundle: filepath.Join(f.dir, "bundle.json"),
		HostKey: write("host_key", pem.EncodeToMemory(block)), HostCertificate: write("host_key-cert.pub", []byte(first+"\n")),
		Audit: filepath.Join(dir, "audit"), ControllerCA: write("tls-ca.pem", f.public.TLSCA),
	}
	log := slog.New(slog.DiscardHandler)
	if err := bastion.Renew(t.Context(), c, true, log, nil); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(c.HostCertificate)
	if err != nil {
		t.Fatal(err)
	}
	old, renewed := parseCertificate(t, first), parseCertificate(t, string(got))
	if renewed.Serial == old.Serial || strings.Join(renewed.ValidPrincipals, " ") != "b1 b1.lab.test 127.0.0.2" {
		t.Errorf("serial %d after %d, names %q", renewed.Serial, old.Serial, renewed.ValidPrincipals)
	}
	// A stranger's key on the same file names: refused by the signer, nothing written.
	otherBlock, err := func() (*pem.Block, error) {
		_, k, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		return ssh.MarshalPrivateKey(k, "")
	}()
	if err != nil {
		t.Fatal(err)
	}
	stranger := c
	stranger.HostKey = write("other_key", pem.EncodeToMemory(otherBlock))
	err = bastion.Renew(t.Context(), stranger, true, log, nil)
	if err == nil || !strings.Contains(err.Error(), join.HostUnknown) {
		t.Errorf("another key: got %v, want %s", err, join.HostUnknown)
	}
	// Another CA's controller is nobody.
	nobody := c
	nobody.ControllerCA = write("other-ca.pem", otherCA(t))
	if err := bastion.Renew(t.Context(), nobody, true, log, nil); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a controller of another CA: got %v", err)
	}
	after, err := os.ReadFile(c.HostCertificate)
	if err != nil || string(after) != string(got) {
		t.Errorf("a refused renewal changed the certificate (%v)", err)
	}
}

func otherCA(t *testing.T) []byte {
	t.Helper()
	cert, _, err := pki.NewCA("lab.test", time.Now(), "lab.test")
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

package pki

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestOperators(t *testing.T) {
	now := time.Now()
	caPEM, caKey, err := NewOperators("lab", now)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := LoadOperators(caPEM, caKey)
	if err != nil {
		t.Fatal(err)
	}
	keyPEM, csr, err := NewOperatorKey("anna")
	if err != nil {
		t.Fatal(err)
	}
	hash := SSHKeyHash([]byte("a key"))
	chain, notAfter, err := ca.Issue(csr, "anna", hash, now, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tls.X509KeyPair(chain, keyPEM); err != nil {
		t.Error(err)
	}
	block, _ := pem.Decode(chain)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if who, key, err := Operator(cert); who != "anna" || key != hash || err != nil {
		t.Errorf("got %q, %q and %v, want anna and the key's hash", who, key, err)
	}
	if d := notAfter.Sub(now.Add(time.Hour)); d > 0 || d < -time.Second {
		t.Errorf("it ends at %v, want an hour after %v", notAfter, now)
	}
	pool, err := Pool(caPEM)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		use x509.ExtKeyUsage
		ok  bool
	}{{x509.ExtKeyUsageClientAuth, true}, {x509.ExtKeyUsageServerAuth, false}} {
		_, err := cert.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{tt.use}})
		if (err == nil) != tt.ok {
			t.Errorf("use %v: got %v, want ok %v", tt.use, err, tt.ok)
		}
	}
	_, edCSR, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	ed, err := edCSR("anna")
	if err != nil {
		t.Fatal(err)
	}
	broken := bytes.Clone(csr)
	broken[len(broken)-1] ^= 1
	for _, tt := range []struct {
		name     string
		csr      []byte
		who, key string
		now      time.Time
		life     time.Duration
		want     string
	}{
		{"an Ed25519 key", ed, "anna", hash, now, time.Hour, "not for a P-256 key"},
		{"not signed by its key", broken, "anna", hash, now, time.Hour, "not signed by its key"},
		{"no name", csr, "", hash, now, time.Hour, "not an engineer's name"},
		{"a name with a space", csr, "anna b", hash, now, time.Hour, "not an engineer's name"},
		{"no hash", csr, "anna", "", now, time.Hour, "not the SHA-256"},
		{"no life", csr, "anna", hash, now, 0, "ended already"},
		{"after the CA", csr, "anna", hash, now.Add(caLife), time.Hour, "ended already"},
		{"before the CA", csr, "anna", hash, now.Add(-time.Hour), time.Hour, "before the CA"},
	} {
		if _, _, err := ca.Issue(tt.csr, tt.who, tt.key, tt.now, tt.life); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
	if _, _, err := Operator(&x509.Certificate{}); err == nil {
		t.Error("an empty certificate names an engineer")
	}
	otherPEM, _, err := NewOperators("lab", now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := LoadOperators(otherPEM, caKey); err == nil {
		t.Error("another CA's key was taken")
	}
}

func TestNewPage(t *testing.T) {
	now := time.Now()
	certPEM, keyPEM, err := NewPage([]string{"controller.lab.internal"}, []netip.Addr{netip.MustParseAddr("127.0.0.1")}, now, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"controller.lab.internal", "127.0.0.1"} {
		if err := pair.Leaf.VerifyHostname(name); err != nil {
			t.Error(err)
		}
	}
	if pair.Leaf.IsCA || pair.Leaf.VerifyHostname("se-1.lab.internal") == nil {
		t.Error("the page's certificate is good for more than the page")
	}
	if _, _, err := NewPage(nil, nil, now, time.Hour); err == nil {
		t.Error("a page without a name has a certificate")
	}
}

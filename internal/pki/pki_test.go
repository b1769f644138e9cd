package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

func newCA(t *testing.T, now time.Time, domains ...string) (*CA, []byte) {
	t.Helper()
	cert, key, err := NewCA("test CA", now, domains...)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := LoadCA(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return ca, cert
}

func newRequest(t *testing.T, name string) (keyPEM, csr []byte) {
	t.Helper()
	keyPEM, csrFor, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	if csr, err = csrFor(name); err != nil {
		t.Fatal(err)
	}
	return keyPEM, csr
}

func TestIssue(t *testing.T) {
	now := time.Now()
	ca, _ := newCA(t, now, "lab.internal")
	_, csr := newRequest(t, "asks-for.something.else")
	chain, notAfter, err := ca.Issue(csr, "se-1.lab.internal", []net.IP{net.IPv4(10, 77, 0, 11)}, true, true, now, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := parseCertificate(chain)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := cert.DNSNames, []string{"se-1.lab.internal"}; !slices.Equal(got, want) || cert.Subject.CommonName != want[0] {
		t.Errorf("names: got %q and %q, want %q alone", got, cert.Subject.CommonName, want)
	}
	if !cert.NotAfter.Equal(notAfter) || notAfter.Sub(now) > time.Hour || notAfter.Sub(now) < time.Hour-2*time.Second {
		t.Errorf("end: got %v and %v, want an hour after %v", cert.NotAfter, notAfter, now)
	}
	if cert.IsCA || cert.KeyUsage != x509.KeyUsageDigitalSignature || len(cert.ExtKeyUsage) != 2 || len(cert.IPAddresses) != 1 {
		t.Errorf("got CA %v, usage %v %v, addresses %v", cert.IsCA, cert.KeyUsage, cert.ExtKeyUsage, cert.IPAddresses)
	}
	if _, notAfter, err := ca.Issue(csr, "se-1.lab.internal", nil, true, false, now, 2*caLife); err != nil || notAfter.After(ca.cert.NotAfter) {
		t.Errorf("long life: got end %v, %v, want the CA's %v", notAfter, err, ca.cert.NotAfter)
	}

	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	otherCSR, err := Request(other, "x")
	if err != nil {
		t.Fatal(err)
	}
	ownCSR, err := Request(ca.key, "x")
	if err != nil {
		t.Fatal(err)
	}
	altered := slices.Clone(csr)
	altered[len(altered)-1] ^= 1
	for _, tt := range []struct {
		name   string
		csr    []byte
		host   string
		server bool
		at     time.Time
		life   time.Duration
		want   string
	}{
		{"altered request", altered, "a.lab.internal", true, now, time.Hour, "not signed by its key"},
		{"no request", nil, "a.lab.internal", true, now, time.Hour, "reading"},
		{"huge request", make([]byte, maxCSR+1), "a.lab.internal", true, now, time.Hour, "longer"},
		{"ECDSA", otherCSR, "a.lab.internal", true, now, time.Hour, "not for an Ed25519"},
		{"the CA's own key", ownCSR, "a.lab.internal", true, now, time.Hour, "own key"},
		{"no purpose", csr, "a.lab.internal", false, now, time.Hour, "neither"},
		{"no life", csr, "a.lab.internal", true, now, 0, "ended"},
		{"after the CA", csr, "a.lab.internal", true, now.Add(2 * caLife), time.Hour, "ended"},
		{"before the CA", csr, "a.lab.internal", true, now.Add(-time.Hour), time.Minute, "begin before"},
		{"no name", csr, "", true, now, time.Hour, "DNS name"},
		{"wildcard", csr, "*.lab.internal", true, now, time.Hour, "DNS name"},
		{"upper case", csr, "A.lab.internal", true, now, time.Hour, "DNS name"},
	} {
		if _, _, err := ca.Issue(tt.csr, tt.host, nil, tt.server, false, tt.at, tt.life); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestLoadCA(t *testing.T) {
	now := time.Now()
	cert, key, err := NewCA("one", now)
	if err != nil {
		t.Fatal(err)
	}
	_, otherKey, err := NewCA("two", now)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := LoadCA(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	leafKey, csr := newRequest(t, "x")
	leaf, _, err := ca.Issue(csr, "x", nil, true, false, now, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name      string
		cert, key []byte
	}{
		{"another key", cert, otherKey}, {"no CA", leaf, leafKey}, {"swapped", key, cert}, {"empty", nil, nil},
		{"two certificates", append(slices.Clone(cert), cert...), key},
	} {
		if _, err := LoadCA(tt.cert, tt.key); err == nil {
			t.Errorf("%s: got nil, want an error", tt.name)
		}
	}
}

// handshake runs TLS between a server with this certificate and a client with this configuration.
func handshake(t *testing.T, chain, key []byte, client *tls.Config, maxVersion uint16) error {
	t.Helper()
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		t.Fatal(err)
	}
	// A pipe has no buffer: two ends that refuse each other would wait for ever.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	a, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer b.Close()
		tls.Server(b, &tls.Config{Certificates: []tls.Certificate{pair}, MaxVersion: maxVersion}).HandshakeContext(t.Context()) // its error is the client's
	}()
	defer func() { a.Close(); <-done }()
	return tls.Client(a, client).HandshakeContext(t.Context())
}

func TestVerifyName(t *testing.T) {
	now := time.Now()
	ca, caPEM := newCA(t, now, "lab.internal")
	other, otherPEM := newCA(t, now)
	key, csr := newRequest(t, "x")
	issue := func(ca *CA, name string, server bool, at time.Time) []byte {
		t.Helper()
		chain, _, err := ca.Issue(csr, name, nil, server, !server, at, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		return chain
	}
	const name = "se-1.lab.internal"
	wildcard := func() []byte {
		der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
			SerialNumber: serial(), NotBefore: now.Add(-time.Minute), NotAfter: now.Add(time.Hour), DNSNames: []string{"*.lab.internal"},
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		}, ca.cert, mustKey(t, csr), ca.key)
		if err != nil {
			t.Fatal(err)
		}
		return pemOf(der)
	}()
	tests := []struct {
		name       string
		chain      []byte
		config     *tls.Config
		maxVersion uint16 // of the server; 0 is the newest
		ok         bool
	}{
		{"good", issue(ca, name, true, now), VerifyName(caPEM, name), 0, true},
		{"another name", issue(ca, "se-2.lab.internal", true, now), VerifyName(caPEM, name), 0, false},
		{"another CA", issue(other, name, true, now), VerifyName(caPEM, name), 0, false},
		{"a client's certificate", issue(ca, name, false, now), VerifyName(caPEM, name), 0, false},
		{"outside the CA's domain", issue(ca, "se-1.other.internal", true, now), VerifyName(caPEM, "se-1.other.internal"), 0, false},
		{"wildcard", wildcard, VerifyName(caPEM, name), 0, false},
		{"TLS 1.2", issue(ca, name, true, now), VerifyName(caPEM, name), tls.VersionTLS12, false},
		{"no CA", issue(ca, name, true, now), VerifyName(nil, name), 0, false},
		{"two CAs", issue(ca, name, true, now), VerifyName(append(slices.Clone(caPEM), otherPEM...), name), 0, false},
		{"no name", issue(ca, name, true, now), VerifyName(caPEM, ""), 0, false},
	}
	for _, tt := range tests {
		if err := handshake(t, tt.chain, key, tt.config, tt.maxVersion); (err == nil) != tt.ok {
			t.Errorf("%s: got %v, want ok %v", tt.name, err, tt.ok)
		}
	}
	// An HTTP client fills in a missing name from the URL.
	config := VerifyName(caPEM, "")
	config.ServerName = name
	if err := handshake(t, issue(ca, name, true, now), key, config, 0); err == nil {
		t.Error("no name, filled in later: got nil, want an error")
	}
}

func mustKey(t *testing.T, csr []byte) any {
	t.Helper()
	pub, err := RequestKey(csr)
	if err != nil {
		t.Fatal(err)
	}
	return pub
}

func pemOf(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func TestIssueHost(t *testing.T) {
	now := time.Now()
	ca, host := newSSHKey(t), newSSHKey(t)
	cert, err := IssueHost(ca, host.PublicKey(), []string{"se-1", "se-1.lab.internal"}, now, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	checker := &ssh.CertChecker{IsHostAuthority: func(key ssh.PublicKey, _ string) bool {
		return string(key.Marshal()) == string(ca.PublicKey().Marshal())
	}}
	for _, tt := range []struct {
		address string
		ok      bool
	}{{"se-1:22", true}, {"se-1.lab.internal:22", true}, {"se-2:22", false}} {
		if err := checker.CheckHostKey(tt.address, nil, cert); (err == nil) != tt.ok {
			t.Errorf("%s: got %v, want ok %v", tt.address, err, tt.ok)
		}
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ecSigner, err := ssh.NewSignerFromKey(ecKey)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name       string
		key        ssh.PublicKey
		principals []string
		life       time.Duration
	}{
		{"no principals", host.PublicKey(), nil, time.Hour},
		{"empty principal", host.PublicKey(), []string{"se-1", ""}, time.Hour},
		{"wildcard", host.PublicKey(), []string{"*"}, time.Hour},
		{"two in one", host.PublicKey(), []string{"a,b"}, time.Hour},
		{"no life", host.PublicKey(), []string{"se-1"}, 0},
		{"the CA's key", ca.PublicKey(), []string{"se-1"}, time.Hour},
		{"ECDSA", ecSigner.PublicKey(), []string{"se-1"}, time.Hour},
		{"certificate", cert, []string{"se-1"}, time.Hour},
	} {
		if _, err := IssueHost(ca, tt.key, tt.principals, now, tt.life); err == nil {
			t.Errorf("%s: got nil, want an error", tt.name)
		}
	}
}

func newSSHKey(t *testing.T) ssh.Signer {
	t.Helper()
	keyPEM, _, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	key, err := parseKey(keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

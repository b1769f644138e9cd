package web

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/pki"
	"mayfly/policies"
)

// world is a page on loopback with its operators' CA.
type world struct {
	t       *testing.T
	caPEM   []byte
	ca      *pki.Operators
	ownPEM  []byte
	address string
	anna    string // her enrolled key
	now     time.Time

	mu     sync.Mutex // guards the rest
	policy policies.Policy
	none   bool
	visits []Visit
	full   error // of the log
}

const testRoot = "lab"

// sshKey is the public half of a security key's key.
func sshKey(t *testing.T, seed byte) string {
	t.Helper()
	wire := ssh.Marshal(struct {
		Type, Key, App string
	}{ssh.KeyAlgoSKED25519, strings.Repeat(string(rune('a'+seed)), ed25519.PublicKeySize), "ssh:"})
	key, err := ssh.ParsePublicKey(wire)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
}

func newWorld(t *testing.T, test bool) *world {
	t.Helper()
	w := &world{t: t, now: time.Now(), anna: sshKey(t, 1)}
	caPEM, caKey, err := pki.NewOperators("lab", w.now.Add(-48*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	w.caPEM = caPEM
	if w.ca, err = pki.LoadOperators(caPEM, caKey); err != nil {
		t.Fatal(err)
	}
	w.policy = policies.Policy{
		Version:   7,
		Hardware:  policies.Hardware{TestRoots: []string{testRoot}},
		Engineers: []policies.Engineer{{Name: "anna", Keys: []policies.Key{{Public: w.anna, Evidence: "test:" + testRoot}}}, {Name: "bert", Keys: []policies.Key{{Public: sshKey(t, 2), Evidence: "test:" + testRoot}}}},
		Operators: []policies.Operator{{Engineers: []string{"anna"}, Actions: []string{ActionPage}}},
	}
	pool, err := pki.Pool(caPEM)
	if err != nil {
		t.Fatal(err)
	}
	certPEM, keyPEM, err := pki.NewPage([]string{"controller.lab.internal"}, []netip.Addr{netip.MustParseAddr("127.0.0.1")}, w.now, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	own, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	w.ownPEM = certPEM
	l, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.address = l.Addr().String()
	in := small()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- Serve(ctx, l, Config{Own: own, Gather: func(context.Context) (View, error) { return Build(in, noon), nil }, Access: Access{
			CA: pool, Test: test, Now: func() time.Time { return w.now },
			Policy: func() (policies.Policy, uint64, bool) {
				w.mu.Lock()
				defer w.mu.Unlock()
				return w.policy, w.policy.Version, !w.none
			},
			Record: func(v Visit) error {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.visits = append(w.visits, v)
				return w.full
			},
		}})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return w
}

// certificate is one of the operators' CA.
func (w *world) certificate(ca *pki.Operators, name, key string, now time.Time, life time.Duration) *tls.Certificate {
	w.t.Helper()
	keyPEM, csr, err := pki.NewOperatorKey(name)
	if err != nil {
		w.t.Fatal(err)
	}
	chain, _, err := ca.Issue(csr, name, hashOf(key), now, life)
	if err != nil {
		w.t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(chain, keyPEM)
	if err != nil {
		w.t.Fatal(err)
	}
	return &pair
}

// client shows a certificate, or none. close ends its connections.
func (w *world) client(cert *tls.Certificate) *http.Client {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(w.ownPEM)
	tr := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if cert == nil {
			return &tls.Certificate{}, nil
		}
		return cert, nil
	}}}
	w.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: time.Minute}
}

func (w *world) get(c *http.Client, path string) (*http.Response, string, error) {
	res, err := c.Get("https://" + w.address + path)
	if err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return res, string(body), err
}

func (w *world) recorded() []Visit {
	w.mu.Lock()
	defer w.mu.Unlock()
	v := w.visits
	w.visits = nil
	return v
}

// serverCertificate is one of the fleet's TLS CA.
func (w *world) serverCertificate() *tls.Certificate {
	w.t.Helper()
	caPEM, caKey, err := pki.NewCA("lab", w.now)
	if err != nil {
		w.t.Fatal(err)
	}
	ca, err := pki.LoadCA(caPEM, caKey)
	if err != nil {
		w.t.Fatal(err)
	}
	keyPEM, csrFor, err := pki.NewKey()
	if err != nil {
		w.t.Fatal(err)
	}
	csr, err := csrFor("se-1.lab.internal")
	if err != nil {
		w.t.Fatal(err)
	}
	chain, _, err := ca.Issue(csr, "se-1.lab.internal", nil, true, true, w.now, time.Hour)
	if err != nil {
		w.t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(chain, keyPEM)
	if err != nil {
		w.t.Fatal(err)
	}
	return &pair
}

// Who has no certificate of the operators' CA gets no connection, and the log says why.
func TestHandshakeRefused(t *testing.T) {
	w := newWorld(t, false)
	otherPEM, otherKey, err := pki.NewOperators("lab", w.now)
	if err != nil {
		t.Fatal(err)
	}
	other, err := pki.LoadOperators(otherPEM, otherKey)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		cert *tls.Certificate
		code string
	}{
		{"none", nil, NoCertificate},
		{"a server's", w.serverCertificate(), OtherCA},
		{"of another CA of the same name", w.certificate(other, "anna", w.anna, w.now, time.Hour), OtherCA},
		{"expired", w.certificate(w.ca, "anna", w.anna, w.now.Add(-2*time.Hour), time.Hour), Ended},
		{"not begun", w.certificate(w.ca, "anna", w.anna, w.now.Add(time.Hour), time.Hour), Ended},
	} {
		if res, _, err := w.get(w.client(tt.cert), "/"); err == nil {
			t.Errorf("%s: got %s, want no connection", tt.name, res.Status)
		}
		v := w.recorded()
		if len(v) == 0 || v[0].Code != tt.code || v[0].From == "" {
			t.Errorf("%s: recorded %+v, want %s", tt.name, v, tt.code)
		}
	}
}

// A certificate that says more than it should is refused, whoever made it.
func TestCertificateRefused(t *testing.T) {
	w := newWorld(t, false)
	pool, err := pki.Pool(w.caPEM)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(w.caPEM)
	ca, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	a := Access{CA: pool, Now: func() time.Time { return w.now }}
	if r := a.Certificate([]*x509.Certificate{ca}); r == nil || r.Code != NotForClients {
		t.Errorf("the CA's own: got %v, want %s", r, NotForClients)
	}
	good := w.certificate(w.ca, "anna", w.anna, w.now, time.Hour).Leaf
	if r := a.Certificate([]*x509.Certificate{good}); r != nil {
		t.Errorf("a good one: got %v", r)
	}
	if r := (Access{Now: a.Now}).Certificate([]*x509.Certificate{good}); r == nil || r.Code != OtherCA {
		t.Errorf("without a CA: got %v, want %s", r, OtherCA)
	}
	for name, change := range map[string]func(*x509.Certificate){
		"with a DNS name":     func(c *x509.Certificate) { c.DNSNames = []string{"controller.lab.internal"} },
		"for servers as well": func(c *x509.Certificate) { c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth) },
	} {
		c := *good
		change(&c)
		if r := a.Certificate([]*x509.Certificate{&c}); r == nil || r.Code != NotForClients {
			t.Errorf("%s: got %v, want %s", name, r, NotForClients)
		}
	}
	nobody := *good
	nobody.URIs = nil
	if r := a.Certificate([]*x509.Certificate{&nobody}); r == nil || r.Code != NamesNobody {
		t.Errorf("without a hardware key: got %v, want %s", r, NamesNobody)
	}
}

// The signed policy of the moment decides, on connections that are open as well.
func TestPolicyDecides(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*world)
		code   string
	}{
		{"left", func(w *world) { w.policy.Engineers = w.policy.Engineers[1:] }, EngineerUnknown},
		{"another key", func(w *world) { w.policy.Engineers[0].Keys[0].Public = sshKey(w.t, 9) }, KeyUnknown},
		{"no key", func(w *world) { w.policy.Engineers[0].Keys = nil }, KeyUnknown},
		{"evidence not accepted", func(w *world) { w.policy.Hardware.TestRoots = nil }, KeyUnknown},
		{"revoked", func(w *world) { w.policy.Hardware.Revoked = []string{policies.Fingerprint(w.anna)} }, KeyUnknown},
		{"another's key", func(w *world) {
			w.policy.Engineers[0].Keys, w.policy.Engineers[1].Keys = w.policy.Engineers[1].Keys, w.policy.Engineers[0].Keys
		}, KeyUnknown},
		{"no operator", func(w *world) { w.policy.Operators = nil }, NotOperator},
		{"operator of something else", func(w *world) { w.policy.Operators[0].Actions = []string{policies.ActionDrain} }, NotOperator},
		{"no policy", func(w *world) { w.none = true }, NoPolicy},
	} {
		w := newWorld(t, false)
		c := w.client(w.certificate(w.ca, "anna", w.anna, w.now, time.Hour))
		res, body, err := w.get(c, "/")
		if err != nil || res.StatusCode != http.StatusOK || !strings.Contains(body, "</span> anna</p>") || res.ProtoMajor != 2 {
			t.Fatalf("%s: before: got %v, %v", tt.name, res, err)
		}
		if v := w.recorded(); len(v) != 1 || v[0].Code != "" || v[0].Engineer != "anna" || v[0].Policy != 7 || v[0].Key != hashOf(w.anna) || v[0].Serial == "" {
			t.Errorf("%s: recorded %+v, want one visit of anna", tt.name, v)
		}
		w.mu.Lock()
		tt.change(w)
		w.mu.Unlock()
		for range 2 {
			res, body, err = w.get(c, "/status.json")
			if err != nil || res.StatusCode != http.StatusForbidden || res.Header.Get("X-Reason") != tt.code || !strings.Contains(body, sentences[tt.code]) {
				t.Errorf("%s: got %v, %v, want 403 with %s", tt.name, res, err, tt.code)
			}
		}
		if v := w.recorded(); len(v) != 1 || v[0].Code != tt.code || v[0].Engineer != "anna" {
			t.Errorf("%s: recorded %+v, want one refusal with %s", tt.name, v, tt.code)
		}
	}
}

// A test fleet that asks no operators shows the page to its engineers; one of people does not.
func TestTestFleet(t *testing.T) {
	for _, test := range []bool{true, false} {
		w := newWorld(t, test)
		w.policy.Operators = nil
		res, _, err := w.get(w.client(w.certificate(w.ca, "anna", w.anna, w.now, time.Hour)), "/")
		if err != nil || (res.StatusCode == http.StatusOK) != test {
			t.Errorf("test %v: got %v, %v", test, res, err)
		}
	}
}

// What cannot be put on record is not shown; when it can be again, it is.
func TestNotOnRecord(t *testing.T) {
	w := newWorld(t, false)
	c := w.client(w.certificate(w.ca, "anna", w.anna, w.now, time.Hour))
	for _, tt := range []struct {
		full   error
		status int
		code   string
	}{{errors.New("disk full"), http.StatusServiceUnavailable, NoAudit}, {nil, http.StatusOK, ""}} {
		w.mu.Lock()
		w.full = tt.full
		w.mu.Unlock()
		if res, _, err := w.get(c, "/"); err != nil || res.StatusCode != tt.status || res.Header.Get("X-Reason") != tt.code {
			t.Errorf("%v: got %v, %v, want %d and %q", tt.full, res, err, tt.status, tt.code)
		}
	}
}

// TLS 1.2 is refused, and a plain request.
func TestOldTLS(t *testing.T) {
	w := newWorld(t, false)
	c := w.client(w.certificate(w.ca, "anna", w.anna, w.now, time.Hour))
	c.Transport.(*http.Transport).TLSClientConfig.MaxVersion = tls.VersionTLS12
	if res, _, err := w.get(c, "/"); err == nil {
		t.Errorf("TLS 1.2: got %s", res.Status)
	}
	res, err := http.Get("http://" + w.address + "/")
	if err == nil {
		defer res.Body.Close()
		body, _ := io.ReadAll(res.Body)
		if bytes.Contains(body, []byte("harbour")) {
			t.Error("a plain request got the page")
		}
	}
}

// An address has a bounded number of connections; a place that is given back is there again.
func TestPerAddress(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	p := newPerAddress(nil)
	for range maxPerAddress {
		if !p.enter("192.0.2.1") {
			t.Fatal("a place is missing")
		}
	}
	if p.enter("192.0.2.1") || !p.enter("192.0.2.2") {
		t.Error("got one too many, or another address none")
	}
	c := &counted{Conn: a, leave: sync.OnceFunc(func() { p.leave("192.0.2.1") })}
	for range 2 {
		if err := c.Close(); err != nil && !errors.Is(err, io.ErrClosedPipe) {
			t.Error(err)
		}
	}
	if !p.enter("192.0.2.1") || p.enter("192.0.2.1") {
		t.Error("closing twice gave other than one place back")
	}
}

package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/fleetctl/web"
	"mayfly/internal/audit"
	"mayfly/internal/pki"
	"mayfly/inventory"
	"mayfly/inventory/store/sqlite"
	"mayfly/policies"
	"mayfly/policies/bundle"
	"mayfly/policies/ledger"
	"mayfly/policies/trust"
)

// pageWorld is a state directory with what the page is made from: a policy in force, a store, a ledger in which one server's life begins.
type pageWorld struct {
	d      state
	policy *policy
	ca     *pki.Operators
	anna   string // her key
}

func newPageWorld(t *testing.T) pageWorld {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	w := pageWorld{d: state(t.TempDir())}
	text, err := os.ReadFile("../inventory/testdata/fleet.toml")
	check(err)
	f, err := inventory.Parse("fleet.toml", text)
	check(err)
	free, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	f.Test, f.Controller.Address, f.Controller.PagePort = true, netip.MustParseAddr("127.0.0.1"), free.Addr().(*net.TCPAddr).AddrPort().Port()
	check(free.Close())

	text, err = os.ReadFile("../policies/testdata/policy.toml")
	check(err)
	p, err := policies.Parse("policy.toml", text, f)
	check(err)
	wire := ssh.Marshal(struct{ Type, Key, App string }{ssh.KeyAlgoSKED25519, strings.Repeat("k", ed25519.PublicKeySize), "ssh:"})
	key, err := ssh.ParsePublicKey(wire)
	check(err)
	w.anna = strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
	p.Hardware.TestRoots, p.Operators, p.SSH.VerifyRequired = []string{"lab"}, nil, false
	p.Engineers = []policies.Engineer{{Name: "anna", Keys: []policies.Key{{Public: w.anna, Evidence: "test:lab"}}}}
	p.Expires = time.Now().Add(time.Hour)

	signer := func(seed string) ssh.Signer {
		s, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed([]byte(strings.Repeat(seed, ed25519.SeedSize))))
		check(err)
		return s
	}
	line := func(seed string) []string { return []string{trust.FormatKey(signer(seed).PublicKey())} }
	tr := &trust.Trust{Kind: trust.Kind, Fleet: f.Name, Test: true, Version: 1, Threshold: 1, Approvers: []trust.Person{{Name: "ana", Keys: line("a")}},
		TicketKeys: line("t"), ListKeys: line("l"), LedgerKeys: line("g")}
	data, err := tr.Marshal()
	check(err)
	check(os.WriteFile(w.d.trustFile(), data, 0o644))
	w.policy = &policy{d: w.d, trust: tr, log: slog.New(slog.DiscardHandler), bundle: &bundle.Bundle{Version: 7, Inventory: f, Policy: p}}

	caPEM, caKey, err := pki.NewOperators(f.Name, time.Now())
	check(err)
	check(os.WriteFile(w.d.operatorsCAFile(), caPEM, 0o644))
	w.ca, err = pki.LoadOperators(caPEM, caKey)
	check(err)

	check(os.MkdirAll(w.d.public(), 0o755))
	logKey, err := ledger.NewSigner(f.Name, signer("g"))
	check(err)
	verifier, err := ledger.Verifier(f.Name, line("g")[0])
	check(err)
	log, err := audit.Open(audit.Options{Dir: w.d.ledger(), Own: &audit.Own{Signer: logKey, Verifier: verifier}})
	check(err)
	now := time.Now().UTC().Truncate(time.Second)
	check(log.Append(ledger.EventBegin, ledger.Begin{Kind: ledger.Kind, Server: "se-1", Epoch: 1, Release: 1, ReleaseSHA256: strings.Repeat("a", 64), Began: now, Deadline: now.Add(time.Hour),
		Evidence: ledger.Unverified, TLSKey: strings.Repeat("b", 64), HostKey: strings.Repeat("c", 64)}))
	check(log.Close())
	return w
}

// serve shows the page until the test ends, and returns a client that shows anna's certificate.
func (w pageWorld) serve(t *testing.T) (client *http.Client, base string) {
	t.Helper()
	s, err := sqlite.Open(t.Context(), w.d.storeFile())
	if err != nil {
		t.Fatal(err)
	}
	f := w.policy.bundle.Inventory
	if err := s.Sync(t.Context(), f, time.Now()); err != nil {
		t.Fatal(err)
	}
	own, err := w.d.ownPage(f, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- w.d.servePage(t.Context(), s, w.policy, slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() { // t.Context has ended
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	key, err := ssh.ParsePublicKey(mustWire(t, w.anna))
	if err != nil {
		t.Fatal(err)
	}
	keyPEM, csr, err := pki.NewOperatorKey("anna")
	if err != nil {
		t.Fatal(err)
	}
	chain, _, err := w.ca.Issue(csr, "anna", pki.SSHKeyHash(key.Marshal()), time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(chain, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(own.Leaf)
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}, DisableKeepAlives: true}
	address := netip.AddrPortFrom(f.Controller.Address, f.Controller.PagePort).String()
	for { // until it listens
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
			break
		}
		select {
		case err := <-done:
			done <- err
			t.Fatalf("the page ended: %v", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
	return &http.Client{Transport: tr, Timeout: time.Minute}, "https://" + address
}

func mustWire(t *testing.T, line string) []byte {
	t.Helper()
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		t.Fatal(err)
	}
	return key.Marshal()
}

func body(t *testing.T, c *http.Client, address string) (*http.Response, []byte) {
	t.Helper()
	res, err := c.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, data
}

// TestServePage: serve's page shows the fleet of the signed policy and of the store, and the ledger's proof, to an engineer of the policy in force; who
// opened it is on record.
func TestServePage(t *testing.T) {
	w := newPageWorld(t)
	c, base := w.serve(t)
	res, data := body(t, c, base+"/status.json")
	var v web.View
	if err := json.Unmarshal(data, &v); res.StatusCode != http.StatusOK || err != nil {
		t.Fatalf("got %s, %v: %.300s", res.Status, err, data)
	}
	f := w.policy.bundle.Inventory
	if v.Fleet != f.Name || v.Policy != 7 || len(v.Servers) != len(f.Rebuilt()) || len(v.Regions) != len(f.Regions) || v.Totals.New != len(f.Rebuilt()) {
		t.Errorf("got fleet %s, policy %d, %d servers, %d regions, %+v", v.Fleet, v.Policy, len(v.Servers), len(v.Regions), v.Totals)
	}
	if v.Ledger.Problem != "" || v.Ledger.Entries != 1 || v.Ledger.Size != 1 || v.Ledger.Root == "" {
		t.Errorf("got ledger %+v, want one entry under a checkpoint", v.Ledger)
	}
	if res, data := body(t, c, base+"/proof?server=se-1"); res.StatusCode != http.StatusOK || !bytes.HasPrefix(data, []byte("c2sp.org/tlog-proof")) {
		t.Errorf("proof: got %s, %.80q", res.Status, data)
	}
	if res, _ := body(t, c, base+"/proof?server=se-2"); res.Header.Get("X-Reason") != web.NoProof {
		t.Errorf("no proof: got %s, %q", res.Status, res.Header.Get("X-Reason"))
	}
	w.policy.mu.Lock()
	b := *w.policy.bundle
	b.Policy.Engineers, b.Version = nil, 8
	w.policy.bundle = &b
	w.policy.mu.Unlock()
	if res, _ := body(t, c, base+"/"); res.StatusCode != http.StatusForbidden || res.Header.Get("X-Reason") != web.EngineerUnknown {
		t.Errorf("after leaving: got %s, %q", res.Status, res.Header.Get("X-Reason"))
	}
	opened := 0
	if _, err := audit.Read(w.d.pageLog(), 0, func(_ uint64, text []byte) error {
		if bytes.Contains(text, []byte(eventPageOpened)) && bytes.Contains(text, []byte(`"anna"`)) {
			opened++
		}
		return nil
	}); err != nil || opened != 3 {
		t.Errorf("the log has %d visits, %v, want 3", opened, err)
	}
	refused := 0
	if err := audit.ReadRefused(w.d.pageLog(), func(text []byte) error {
		if bytes.Contains(text, []byte(web.EngineerUnknown)) {
			refused++
		}
		return nil
	}); err != nil || refused != 1 {
		t.Errorf("the log has %d refusals, %v, want 1", refused, err)
	}
}

// TestPageLedger: entries are read once, and without the journal, which is the signer's alone; a ledger that is not whole is said to be that.
func TestPageLedger(t *testing.T) {
	w := newPageWorld(t)
	now := time.Now()
	l := &pageLedger{dir: w.d.ledger()}
	if err := os.RemoveAll(filepath.Join(l.dir, "journal")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(l.dir, "journal"), nil, 0o600); err != nil { // as good as one that may not be read
		t.Fatal(err)
	}
	for range 2 {
		out, entries := l.look(w.policy.trust, now)
		if out.Problem != "" || out.Entries != 1 || len(entries) != 1 || !entries["se-1"].Proven || entries["se-1"].Epoch != 1 {
			t.Errorf("got %+v and %v, want one entry that is proven", out, entries)
		}
	}
	if err := os.RemoveAll(filepath.Join(l.dir, "tile")); err != nil {
		t.Fatal(err)
	}
	if out, _ := (&pageLedger{dir: l.dir}).look(w.policy.trust, now); out.Problem == "" {
		t.Error("a ledger without its entries is said to be whole")
	}
	if out, _ := (&pageLedger{dir: t.TempDir()}).look(w.policy.trust, now); out.Problem == "" || out.Size != 0 {
		t.Errorf("no ledger: got %+v", out)
	}
}

// TestOwnPage: the page's certificate stays until it nears its end or its names change; its key is private.
func TestOwnPage(t *testing.T) {
	w := newPageWorld(t)
	f, now := w.policy.bundle.Inventory, time.Now()
	serial := func(f inventory.Fleet, now time.Time) string {
		t.Helper()
		pair, err := w.d.ownPage(f, now)
		if err != nil {
			t.Fatal(err)
		}
		return pair.Leaf.SerialNumber.String()
	}
	first := serial(f, now)
	if serial(f, now.Add(pageLife-pageRenewal-time.Hour)) != first {
		t.Error("it changed while it was good")
	}
	second := serial(f, now.Add(pageLife-pageRenewal+time.Hour))
	if second == first {
		t.Error("it did not change before its end")
	}
	f.Controller.Address = netip.MustParseAddr("192.0.2.9")
	if serial(f, now.Add(pageLife-pageRenewal+2*time.Hour)) == second {
		t.Error("it did not change with the address")
	}
	info, err := os.Stat(w.d.pageKey())
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key's mode is %v, %v", info.Mode(), err)
	}
}

// TestPageWithoutCA: a port without the operators' CA is refused with what makes one; no port is no page.
func TestPageWithoutCA(t *testing.T) {
	w := newPageWorld(t)
	if err := os.Remove(w.d.operatorsCAFile()); err != nil {
		t.Fatal(err)
	}
	if err := w.d.servePage(t.Context(), nil, w.policy, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), filepath.Base(w.d.operatorsCAFile())) {
		t.Errorf("got %v", err)
	}
	w.policy.bundle.Inventory.Controller.PagePort = 0
	if err := w.d.servePage(t.Context(), nil, w.policy, slog.New(slog.DiscardHandler)); err != nil {
		t.Errorf("without a port: got %v", err)
	}
}

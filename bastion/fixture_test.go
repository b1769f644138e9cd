package bastion

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/audit"
	"mayfly/internal/sshsig"
	"mayfly/inventory"
	"mayfly/policies"
	"mayfly/policies/bundle"
	"mayfly/policies/trust"
	"mayfly/testenv/softkey"
)

// patience bounds how long a test waits for something that must happen.
const patience = 20 * time.Second

// entry is one record of the audit log.
type entry struct {
	Event  string          `json:"event"`
	Record json.RawMessage `json:"record"`
}

func (e entry) closing(t testing.TB) closingRecord {
	t.Helper()
	var r closingRecord
	if err := json.Unmarshal(e.Record, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// spy is a real audit log that tells the test of each record, and can be made to fail.
type spy struct {
	log     *audit.Log
	entries chan entry
	mu      sync.Mutex
	fail    error
	opening error              // fails AppendOpening alone
	after   func(event string) // called by AppendOpening when its record is durable; nil: nothing
}

func (s *spy) Append(event string, record any) error { return s.tell(s.log.Append, event, record) }

func (s *spy) AppendOpening(event string, record any) error {
	s.mu.Lock()
	opening := s.opening
	s.mu.Unlock()
	if opening != nil {
		return opening
	}
	if err := s.tell(s.log.AppendOpening, event, record); err != nil || s.after == nil {
		return err
	}
	s.after(event)
	return nil
}

func (s *spy) AppendRefused(event string, record any) error {
	return s.tell(s.log.AppendRefused, event, record)
}

func (s *spy) tell(write func(event string, record any) error, event string, record any) error {
	s.mu.Lock()
	fail := s.fail
	s.mu.Unlock()
	if fail != nil {
		return fail
	}
	if err := write(event, record); err != nil {
		return err
	}
	data, err := json.Marshal(record)
	if err != nil {
		return err
	}
	s.entries <- entry{event, data}
	return nil
}

func (s *spy) Healthy() error { return s.log.Healthy() }

func (s *spy) failOpening(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opening = err
}

func (s *spy) failWith(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = err
}

// fixture is a fleet on paper with a real bastion on a loopback address: anna may open port 22 of se-1 and se-2, bert port 22
// of nl-1. Servers' addresses lead to listeners of the test.
type fixture struct {
	t         testing.TB
	dir       string
	config    Config
	approvers []ssh.Signer
	anna      *softkey.Key
	bert      *softkey.Key
	hostKey   ssh.Signer
	hostCA    ssh.Signer
	ticket    ssh.Signer // the fleet's signer's, for drained statements
	policy    policies.Policy
	fleet     inventory.Fleet
	witnesses []*stubWitness // of the trust policy; all must confirm

	server  *Server
	spy     *spy
	waiting []entry // records that nobody has asked for yet
	address string
	reload  chan os.Signal
	cut     chan os.Signal // of a drain; nil: none

	mu      sync.Mutex
	targets map[netip.AddrPort]string // where dials lead
}

func newSigner(t testing.TB) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

func authorized(key ssh.PublicKey) string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
}

func newFixture(t testing.TB) *fixture {
	t.Helper()
	f := &fixture{t: t, dir: t.TempDir(), approvers: []ssh.Signer{newSigner(t), newSigner(t), newSigner(t)},
		hostKey: newSigner(t), hostCA: newSigner(t), ticket: newSigner(t), reload: make(chan os.Signal, 1),
		spy: &spy{entries: make(chan entry, 1024)}, targets: map[netip.AddrPort]string{}}
	for _, key := range []**softkey.Key{&f.anna, &f.bert} {
		var err error
		if *key, err = softkey.New(rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	f.config = Config{Listen: netip.MustParseAddrPort("127.0.0.1:0"), Trust: f.path("trust.json"), Bundle: f.path("bundle.json"),
		HostKey: f.path("host_key"), HostCertificate: f.path("host_key-cert.pub"), Audit: f.path("audit")}
	f.fleet = inventory.Fleet{
		Name: "lab", Domain: "lab.internal", Test: true,
		Network:    inventory.Network{Management: []netip.Prefix{netip.MustParsePrefix("10.77.0.0/24")}, Gateway: netip.MustParseAddr("10.77.0.1")},
		Controller: inventory.Controller{Address: netip.MustParseAddr("10.77.0.1"), BootPort: 80, JoinPort: 443, CheckinPort: 8443},
		Bastions:   []inventory.Bastion{{Name: "bastion", Address: netip.MustParseAddr("10.77.0.2"), Port: 22}},
		Regions:    []inventory.Region{{Name: "se"}, {Name: "nl"}},
		Racks:      []inventory.Rack{{Name: "se-a", Region: "se"}, {Name: "nl-a", Region: "nl"}},
	}
	for i, name := range []string{"se-1", "se-2", "nl-1"} {
		n := string(rune('1' + i))
		f.fleet.Servers = append(f.fleet.Servers, inventory.Server{
			Name: name, Rack: name[:2] + "-a", Role: "vpn", Address: netip.MustParsePrefix("10.77.0.1" + n + "/24"), Capacity: 1000,
			Tunnel: netip.MustParsePrefix("10.64." + n + ".0/24"),
			Power:  inventory.Power{Driver: "qemu", Tap: "tap" + n, MAC: "52:54:00:00:00:1" + n, MemoryMiB: 512},
		})
	}
	f.policy = policies.Policy{
		Version: 1, Expires: time.Now().Add(time.Hour).UTC().Truncate(time.Second),
		SSH:      policies.SSH{Level: "pq-preferred", Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32"), netip.MustParsePrefix("127.0.0.2/31")}},
		Hardware: policies.Hardware{TestRoots: []string{"softkey"}},
		Engineers: []policies.Engineer{
			{Name: "anna", Keys: []policies.Key{{Public: f.anna.Authorized(), Evidence: "test:softkey"}}},
			{Name: "bert", Keys: []policies.Key{{Public: f.bert.Authorized(), Evidence: "test:softkey"}}},
		},
		Grants: []policies.Grant{
			{Engineers: []string{"anna"}, Servers: []string{"region:se"}, Ports: []uint16{22}},
			{Engineers: []string{"bert"}, Servers: []string{"nl-1"}, Ports: []uint16{22}},
		},
		Rotation: policies.Rotation{MaxAge: policies.Duration(24 * time.Hour), MaxParallel: 1, DrainLimit: policies.Duration(time.Minute), BootLimit: policies.Duration(time.Minute)},
	}
	f.writeTrust()
	f.writeHostKeys(time.Now().Add(time.Hour))
	f.writeBundle(2)
	return f
}

func (f *fixture) path(name string) string { return filepath.Join(f.dir, name) }

func (f *fixture) write(path string, data []byte, mode os.FileMode) {
	f.t.Helper()
	if err := os.WriteFile(path+".new", data, mode); err != nil {
		f.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) writeTrust() {
	f.t.Helper()
	tr := trust.Trust{Kind: trust.Kind, Fleet: "lab", Test: true, Version: 1, Threshold: 2,
		TicketKeys: []string{authorized(f.ticket.PublicKey())}, ListKeys: []string{authorized(newSigner(f.t).PublicKey())}}
	for i, name := range []string{"carl", "dora", "emil"} {
		tr.Approvers = append(tr.Approvers, trust.Person{Name: name, Keys: []string{authorized(f.approvers[i].PublicKey())}})
	}
	for _, w := range f.witnesses {
		tr.Witnesses = append(tr.Witnesses, trust.Person{Name: w.name, Keys: []string{authorized(w.key.PublicKey())}})
		tr.WitnessThreshold = len(f.witnesses)
	}
	data, err := tr.Marshal()
	if err != nil {
		f.t.Fatal(err)
	}
	f.write(f.config.Trust, data, 0o644)
}

func (f *fixture) writeHostKeys(until time.Time) {
	f.t.Helper()
	f.writeCertificate(ssh.Certificate{Key: f.hostKey.PublicKey(), CertType: ssh.HostCert, ValidPrincipals: []string{"bastion", "10.77.0.2", "127.0.0.1"},
		ValidAfter: uint64(time.Now().Add(-time.Minute).Unix()), ValidBefore: uint64(until.Unix())})
}

func (f *fixture) writeCertificate(c ssh.Certificate) {
	f.t.Helper()
	if err := c.SignCert(rand.Reader, f.hostCA); err != nil {
		f.t.Fatal(err)
	}
	f.write(f.config.HostCertificate, ssh.MarshalAuthorizedKey(&c), 0o644)
	if _, err := os.Stat(f.config.HostKey); err != nil {
		f.writePrivateKey()
	}
}

// writePrivateKey makes a key, since a signer does not give its private half away.
func (f *fixture) writePrivateKey() {
	f.t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		f.t.Fatal(err)
	}
	if f.hostKey, err = ssh.NewSignerFromKey(private); err != nil {
		f.t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		f.t.Fatal(err)
	}
	f.write(f.config.HostKey, pemBytes(block), 0o600)
	f.writeHostKeys(time.Now().Add(time.Hour))
}

// writeBundle writes the policy, signed by so many approvers.
func (f *fixture) writeBundle(signers int) {
	f.t.Helper()
	data, err := bundle.Make(f.fleet, f.policy, time.Now())
	if err != nil {
		f.t.Fatal(err)
	}
	var signatures []byte
	for _, approver := range f.approvers[:signers] {
		signature, err := sshsig.Sign(approver, bundle.Namespace, data)
		if err != nil {
			f.t.Fatal(err)
		}
		signatures = append(signatures, signature...)
	}
	f.write(f.config.Bundle+".sig", signatures, 0o644)
	f.write(f.config.Bundle, data, 0o644)
}

// start serves until the test ends, and checks that nothing is left over then.
func (f *fixture) start() {
	f.t.Helper()
	f.startWith(func(*Server) {})
}

// startWith is start with a change of the server before it serves.
func (f *fixture) startWith(change func(*Server)) {
	f.t.Helper()
	t := f.t
	before := runtime.NumGoroutine()
	log, err := openAudit(f.config, f.fleet.Name, nil)
	if err != nil {
		t.Fatal(err)
	}
	f.spy.log = log
	f.server, err = newServer(f.config, slog.New(slog.NewTextHandler(testWriter{t}, nil)), f.spy, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	f.server.dial, f.server.cutNow = f.dial, f.cut
	change(f.server)
	ctx, stop := context.WithCancel(context.Background())
	ready, done := make(chan string, 1), make(chan error, 1)
	go func() {
		done <- f.server.serve(ctx, f.reload, func(a net.Addr, _ uint64) { ready <- a.String() })
	}()
	select {
	case f.address = <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil && f.spy.fail == nil {
			t.Errorf("serve: %v", err)
		}
		if err := log.Close(); err != nil {
			t.Error(err)
		}
		f.verifyLog()
		leftOver(t, before)
	})
}

// verifyLog checks the audit log on disk by its key.
func (f *fixture) verifyLog() {
	key, err := audit.ReadVerifier(filepath.Join(f.config.Audit, audit.KeyName+".pub"))
	if err != nil {
		f.t.Fatal(err)
	}
	if r, err := audit.Verify(f.config.Audit, audit.Trusted{Log: key}); err != nil || r.Size == 0 || r.Unsigned != 0 {
		f.t.Errorf("audit log: %+v, %v", r, err)
	}
}

// leftOver fails if the test leaves goroutines of the bastion behind.
func leftOver(t testing.TB, before int) {
	t.Helper()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(patience); runtime.NumGoroutine() > before && time.Now().Before(deadline); {
		<-poll.C
	}
	buffer := make([]byte, 1<<20)
	stacks := string(buffer[:runtime.Stack(buffer, true)])
	for _, stack := range strings.Split(stacks, "\n\n") {
		for _, owner := range []string{"bastion.(*Server)", "(*visit)", "crypto/ssh.("} {
			if strings.Contains(stack, owner) {
				t.Errorf("left over:\n%s", stack)
			}
		}
	}
}

// dial leads a server's address to the test's listener.
func (f *fixture) dial(ctx context.Context, address netip.AddrPort) (halfCloser, error) {
	f.mu.Lock()
	to, ok := f.targets[address]
	f.mu.Unlock()
	if !ok {
		return nil, errors.New("no such target in the test")
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", to)
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

// target makes a server's port lead to a listener that serves each connection with handle.
func (f *fixture) target(address string, handle func(*net.TCPConn)) {
	f.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.t.Fatal(err)
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer conn.Close()
				handle(conn.(*net.TCPConn))
			})
		}
	})
	f.t.Cleanup(func() { l.Close(); conns.Wait() })
	f.mu.Lock()
	defer f.mu.Unlock()
	f.targets[netip.MustParseAddrPort(address)] = l.Addr().String()
}

// echo sends back what it gets, and closes when the other side has closed its half.
func echo(conn *net.TCPConn) {
	if _, err := io.Copy(conn, conn); err != nil {
		return
	}
	conn.CloseWrite()
}

// next waits for the next record of an event, in the order of that event; others wait for their own call.
func (f *fixture) next(event string) entry {
	f.t.Helper()
	for i, e := range f.waiting {
		if e.Event == event {
			f.waiting = slices.Delete(f.waiting, i, i+1)
			return e
		}
	}
	timeout := time.After(patience)
	for {
		select {
		case e := <-f.spy.entries:
			if e.Event == event {
				return e
			}
			f.waiting = append(f.waiting, e)
		case <-timeout:
			f.t.Fatalf("no record %q within %v; others: %+v", event, patience, f.waiting)
		}
	}
}

// closing waits for a closing record.
func (f *fixture) closing() closingRecord {
	f.t.Helper()
	return f.next(eventConnection).closing(f.t)
}

// client logs in with a signer.
func (f *fixture) client(user string, signers ...ssh.Signer) (*ssh.Client, error) {
	f.t.Helper()
	config := &ssh.ClientConfig{User: user, HostKeyCallback: f.checkHost(), Timeout: patience}
	if len(signers) > 0 {
		config.Auth = []ssh.AuthMethod{ssh.PublicKeys(signers...)}
	}
	return ssh.Dial("tcp", f.address, config)
}

// login is client that must succeed.
func (f *fixture) login(user string, signer ssh.Signer) *ssh.Client {
	f.t.Helper()
	client, err := f.client(user, signer)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { client.Close() })
	return client
}

// checkHost accepts only a certificate of the fixture's host CA.
func (f *fixture) checkHost() ssh.HostKeyCallback {
	checker := ssh.CertChecker{IsHostAuthority: func(key ssh.PublicKey, _ string) bool {
		return bytes.Equal(key.Marshal(), f.hostCA.PublicKey().Marshal())
	}}
	return checker.CheckHostKey
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s", bytes.TrimSpace(b))
	return len(b), nil
}

func pemBytes(block *pem.Block) []byte { return pem.EncodeToMemory(block) }

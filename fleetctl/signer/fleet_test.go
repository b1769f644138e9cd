package signer

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/pki"
	"mayfly/internal/sshsig"
	"mayfly/inventory"
	"mayfly/inventory/store"
	"mayfly/inventory/store/sqlite"
	"mayfly/policies"
	"mayfly/policies/bundle"
	"mayfly/policies/trust"
	"mayfly/rebuild/boot"
	"mayfly/rebuild/join"
	"mayfly/rebuild/ticket"
	"mayfly/rebuild/ticket/issue"
)

// fleet is a signer on its socket, a boot service on loopback, and a store on disk.
type fleet struct {
	inv    inventory.Fleet
	dir    string
	public Public
	trust  *trust.Trust
	client *Client
	store  store.Store
	people []ssh.Signer
	change func(*policies.Policy) // of every policy that is signed

	required []byte // release.json of tickets that ask for a quote; nil: tickets ask for none

	mu         sync.Mutex
	data, sigs []byte
	steps      []join.Trust
}

const testServer = "se-1"

func newFleet(t *testing.T) *fleet {
	t.Helper()
	dir, err := os.MkdirTemp("", "mf-signer-") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	bootPort, joinPort := freePort(t), freePort(t)
	for joinPort == bootPort { // the system may give a port back at once
		joinPort = freePort(t)
	}
	f := &fleet{dir: dir, inv: testInventory(bootPort, joinPort)}
	if f.public, err = Init(dir, f.inv.Domain, time.Now()); err != nil {
		t.Fatal(err)
	}
	tr := trust.Trust{Kind: trust.Kind, Fleet: f.inv.Name, Test: true, Version: 1, Threshold: 2,
		TicketKeys: []string{f.public.TicketKey}, ListKeys: []string{f.public.ListKey}}
	for _, name := range []string{"ana", "bo"} {
		key := newSSHSigner(t)
		f.people = append(f.people, key)
		tr.Approvers = append(tr.Approvers, trust.Person{Name: name, Keys: []string{trust.FormatKey(key.PublicKey())}})
	}
	data, err := tr.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	f.write(t, "trust.json", data)
	f.trust = &tr
	f.sign(t, 1)
	if err := os.MkdirAll(filepath.Join(dir, "public", "releases", "7"), 0o755); err != nil {
		t.Fatal(err)
	}
	f.write(t, "public/releases/7/release.json", []byte("statement\n"))
	f.write(t, "public/releases/7/secret", []byte("x"))
	f.client = Dial(dir)
	return f
}

// start runs both processes until the test ends.
func (f *fleet) start(t *testing.T) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	wg.Go(func() {
		if err := Serve(ctx, f.dir, log); err != nil {
			t.Errorf("signer: %v", err)
		}
	})
	wait(t, "the signer's socket", func() bool {
		c, err := net.Dial("unix", filepath.Join(f.dir, SocketName))
		return err == nil && c.Close() == nil
	})
	var err error
	if f.store, err = sqlite.Open(ctx, filepath.Join(f.dir, "store.db")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.store.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := f.store.Sync(ctx, f.inv, time.Now()); err != nil {
		t.Fatal(err)
	}
	ready := make(chan struct{})
	wg.Go(func() {
		err := boot.Serve(ctx, boot.Config{Fleet: f.inv, Trust: f.trust, CA: f.public.TLSCA, Public: filepath.Join(f.dir, "public"), Store: f.store, Signer: f.client, Bundle: f.bundle, Steps: f.lastSteps, Log: log, Audit: filepath.Join(f.dir, "audit"), Ready: func() { close(ready) }})
		if err != nil {
			t.Errorf("boot service: %v", err)
		}
	})
	select {
	case <-ready:
	case <-time.After(20 * time.Second):
		t.Fatal("the boot service is not ready")
	}
}

func (f *fleet) lastSteps() []join.Trust {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.steps
}

func (f *fleet) bundle() (data, sigs []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.data, f.sigs
}

// sign puts a policy of this version in force.
func (f *fleet) sign(t *testing.T, version uint64) {
	t.Helper()
	p := testPolicy(version)
	if f.change != nil {
		f.change(&p)
	}
	data, err := bundle.Make(f.inv, p, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	var sigs []byte
	for _, p := range f.people {
		sig, err := sshsig.Sign(p, bundle.Namespace, data)
		if err != nil {
			t.Fatal(err)
		}
		sigs = append(sigs, sig...)
	}
	f.write(t, "bundle.json.sig", sigs)
	f.write(t, "bundle.json", data)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.data, f.sigs = data, sigs
}

func (f *fleet) write(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(f.dir, name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// newTicket makes what rotate would ask for.
func (f *fleet) newTicket(t *testing.T, epoch uint64) ticket.Ticket {
	t.Helper()
	statement, tpm := []byte("statement\n"), ticket.TPMOff
	if f.required != nil {
		statement, tpm = f.required, ticket.TPMRequired
	}
	tk, err := issue.New(f.inv, testServer, issue.Life{
		Epoch: epoch, Release: sha256.Sum256(statement), Path: boot.ReleasePath(7), CA: f.public.TLSCA,
		NotAfter: time.Now().Add(5 * time.Minute), MaxAge: time.Hour, Made: time.Now(), TPM: tpm, Disks: ticket.DisksRefuse,
	})
	if err != nil {
		t.Fatal(err)
	}
	return tk
}

// begin brings the server to booting with a signed ticket, as rotate does.
func (f *fleet) begin(t *testing.T) (tk ticket.Ticket, data, sig []byte) {
	t.Helper()
	ctx := t.Context()
	s, err := f.store.Server(ctx, testServer)
	if err != nil {
		t.Fatal(err)
	}
	epoch, err := f.store.BeginLife(ctx, testServer, s.Epoch, s.State, "test", time.Now(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.store.Move(ctx, testServer, epoch, inventory.Wiping, inventory.Booting, "test", time.Now()); err != nil {
		t.Fatal(err)
	}
	tk = f.newTicket(t, epoch)
	if data, sig, err = f.client.Ticket(ctx, tk); err != nil {
		t.Fatal(err)
	}
	if err := f.store.PutTicket(ctx, testServer, epoch, ticket.Hash(data), tk.NotAfter); err != nil {
		t.Fatal(err)
	}
	return tk, data, sig
}

// server is what a machine makes in its RAM.
type machineKeys struct {
	key    ed25519.PrivateKey
	keyPEM []byte
	csr    []byte
	host   string
	bootID string
}

func newMachine(t *testing.T) machineKeys {
	t.Helper()
	keyPEM, csrFor, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := csrFor("whatever.it.says")
	if err != nil {
		t.Fatal(err)
	}
	m := machineKeys{keyPEM: keyPEM, csr: csr, bootID: "5f8c733c-17b7-4f19-a531-eed9d5e7bc00"}
	pair, err := tls.X509KeyPair(selfSigned(t, csr), keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	m.key = pair.PrivateKey.(ed25519.PrivateKey)
	m.host = strings.TrimSpace(string(ssh.MarshalAuthorizedKey(newSSHSigner(t).PublicKey())))
	return m
}

// selfSigned is any certificate for the key of csr, by a CA of nobody.
func selfSigned(t *testing.T, csr []byte) []byte {
	t.Helper()
	certPEM, keyPEM, err := pki.NewCA("nobody", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	ca, err := pki.LoadCA(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	chain, _, err := ca.Issue(csr, testServer+".lab.test", nil, true, true, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return chain
}

func (m machineKeys) request(data, sig []byte) join.Request {
	tunnel := make([]byte, 32)
	tunnel[0] = 9
	return join.Request{Ticket: data, Signature: sig, CSR: m.csr, HostKey: m.host, TunnelKey: base64.StdEncoding.EncodeToString(tunnel), BootID: m.bootID}
}

func (m machineKeys) renewal(chain []byte) join.RenewRequest {
	return join.RenewRequest{CSR: m.csr, HostKey: m.host, Current: chain, Proof: ed25519.Sign(m.key, join.RenewMessage(m.csr, m.host))}
}

func (m machineKeys) pair(t *testing.T, chain []byte) tls.Certificate {
	t.Helper()
	p, err := tls.X509KeyPair(chain, m.keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func newSSHSigner(t *testing.T) ssh.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func freePort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return uint16(port)
}

func testInventory(bootPort, joinPort uint16) inventory.Fleet {
	loopback := netip.MustParseAddr("127.0.0.1")
	return inventory.Fleet{
		Name: "lab", Domain: "lab.test", Test: true,
		Network:    inventory.Network{Management: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/24"), netip.MustParsePrefix("10.77.0.0/24")}, Gateway: netip.MustParseAddr("10.77.0.1")},
		Controller: inventory.Controller{Address: loopback, BootPort: bootPort, JoinPort: joinPort, CheckinPort: 1},
		Bastions:   []inventory.Bastion{{Name: "b1", Address: netip.MustParseAddr("127.0.0.2"), Port: 22}},
		Regions:    []inventory.Region{{Name: "se"}},
		Racks:      []inventory.Rack{{Name: "r1", Region: "se"}},
		Servers: []inventory.Server{{
			Name: testServer, Rack: "r1", Role: "vpn", Address: netip.MustParsePrefix("10.77.0.11/24"), Capacity: 1000,
			Tunnel: netip.MustParsePrefix("10.64.1.0/24"), Power: inventory.Power{Driver: "qemu", Tap: "tap0", MAC: "52:54:00:00:00:01", MemoryMiB: 512},
		}},
	}
}

func testPolicy(version uint64) policies.Policy {
	skKey := "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAILmuPo8wAvzfd4IoqljYGIPIeq7tC8CdADuyro7FYkRIAAAABHNzaDo="
	return policies.Policy{
		Version: version, Expires: time.Now().Add(24 * time.Hour).UTC().Truncate(time.Second),
		SSH:       policies.SSH{Level: policies.PQPreferred, Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}},
		Hardware:  policies.Hardware{TestRoots: []string{"lab"}},
		Engineers: []policies.Engineer{{Name: "ana", Keys: []policies.Key{{Public: skKey, Evidence: "test:lab"}}}},
		Grants:    []policies.Grant{{Engineers: []string{"ana"}, Servers: []string{"*"}, Ports: []uint16{22}}},
		Rotation: policies.Rotation{
			MaxAge: policies.Duration(24 * time.Hour), MaxParallel: 1, DrainLimit: policies.Duration(10 * time.Second),
			BootLimit: policies.Duration(time.Minute), Bake: policies.Duration(time.Second),
		},
		Image: policies.Image{MinVersion: 1, TPM: policies.TPMOff},
	}
}

// wait polls for a state that another goroutine brings about.
func wait(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(15 * time.Second); !done(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("waited too long for %s", what)
		}
	}
}

func reason(err error) string {
	if r, ok := join.IsRefusal(err); ok {
		return r.Reason
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/fleetctl/signer"
	"mayfly/internal/command"
	"mayfly/policies/trust"
)

// caFleet is a signed fleet of one bastion and one host, a signer on its socket, and a host that answers for the bastion.
type caFleet struct {
	t       *testing.T
	dir     string
	fleet   string // fleet.toml and policy.toml
	policy  string
	host    ssh.Signer
	address string

	mu   sync.Mutex // guards cert
	cert ssh.Signer
}

const caFleetTOML = `
name = "office"
domain = "office.internal"
test = true
[[bastion]]
name = "gate"
address = "127.0.0.1"
port = 22
[[bastion]]
name = "gate-2"
address = "127.0.0.3"
port = 22
[[server]]
name = "web-1"
role = "host"
address = "192.0.2.11/24"
host_keys = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILmuPo8wAvzfd4IoqljYGIPIeq7tC8CdADuyro7FYkRI"]
`

const caPolicyTOML = `
version = 1
expires = 2999-01-01T00:00:00Z
[ssh]
level = "pq-preferred"
allow = ["127.0.0.0/8"]
[hardware]
test_roots = ["softkey"]
[[engineer]]
name = "alice"
[[engineer.key]]
public = "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAILmuPo8wAvzfd4IoqljYGIPIeq7tC8CdADuyro7FYkRIAAAABHNzaDo="
evidence = "test:softkey"
[[grant]]
engineers = ["alice"]
servers = ["web-1"]
ports = [22]
`

// fleetctl runs a verb and wants this exit code.
func (f *caFleet) fleetctl(want int, args ...string) (stdout, stderr string) {
	f.t.Helper()
	var out, talk bytes.Buffer
	if got := run(context.Background(), args, strings.NewReader(""), &out, &talk); got != want {
		f.t.Fatalf("fleetctl %v: exit code %d, want %d\n%s%s", args, got, want, out.Bytes(), talk.Bytes())
	}
	return out.String(), talk.String()
}

func (f *caFleet) write(name string, data []byte) string {
	f.t.Helper()
	path := filepath.Join(f.dir, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		f.t.Fatal(err)
	}
	return path
}

func newCAFleet(t *testing.T) *caFleet {
	t.Helper()
	dir, err := os.MkdirTemp("", "mf-ca-") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	f := &caFleet{t: t, dir: dir, fleet: caFleetTOML, policy: caPolicyTOML}
	f.found()
	f.serveKeys()
	return f
}

// found makes the fleet: its trust policy, its keys, its first policy in force.
func (f *caFleet) found(more ...string) {
	f.t.Helper()
	t, dir := f.t, f.dir
	f.write("fleet.toml", []byte(f.fleet))
	f.write("policy.toml", []byte(f.policy))
	init := append([]string{"init", "--dir", dir}, more...)
	for _, name := range []string{"ana", "bo"} {
		_, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		block, err := ssh.MarshalPrivateKey(private, name)
		if err != nil {
			t.Fatal(err)
		}
		key, err := ssh.NewSignerFromKey(private)
		if err != nil {
			t.Fatal(err)
		}
		f.write(name, pem.EncodeToMemory(block))
		init = append(init, "--approver", name+"="+f.write(name+".pub", ssh.MarshalAuthorizedKey(key.PublicKey())))
		f.host = key // any Ed25519 key; the last one made
	}
	f.fleetctl(0, init...)
	f.fleetctl(0, "policy", "bundle", "--dir", dir)
	for _, name := range []string{"ana", "bo"} {
		f.fleetctl(0, "policy", "sign", "--dir", dir, "--key", filepath.Join(dir, name))
	}
}

// serveKeys runs the signer, and the host that answers for the bastion.
func (f *caFleet) serveKeys() {
	f.t.Helper()
	t, dir := f.t, f.dir
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	wg.Go(func() {
		if err := signer.Serve(ctx, dir, slog.New(slog.DiscardHandler)); err != nil {
			t.Errorf("signer: %v", err)
		}
	})
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(20 * time.Second); ; <-tick.C {
		if c, err := net.Dial("unix", filepath.Join(dir, signer.SocketName)); err == nil {
			c.Close()
			break
		}
		if time.Now().After(end) {
			t.Fatal("no signer")
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.address = l.Addr().String()
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { f.answer(conn) })
		}
	})
	t.Cleanup(func() { l.Close() })
}

// answer shows the host key with its certificate, and lets nobody in.
func (f *caFleet) answer(conn net.Conn) {
	defer conn.Close()
	config := &ssh.ServerConfig{PublicKeyCallback: func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) {
		return nil, os.ErrPermission
	}}
	f.mu.Lock()
	config.AddHostKey(f.cert)
	f.mu.Unlock()
	_, _, _, _ = ssh.NewServerConn(conn, config)
}

// certify renews the host's certificate, and returns it.
func (f *caFleet) certify() ssh.Signer {
	f.t.Helper()
	line, _, err := signer.Dial(f.dir).Host(f.t.Context(), "gate", trust.FormatKey(f.host.PublicKey()), nil)
	if err != nil {
		f.t.Fatal(err)
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		f.t.Fatal(err)
	}
	cert, err := ssh.NewCertSigner(key.(*ssh.Certificate), f.host)
	if err != nil {
		f.t.Fatal(err)
	}
	return cert
}

// knownHosts keeps what engineers who fetch it now would have.
func (f *caFleet) knownHosts(name string) string {
	f.t.Helper()
	path := filepath.Join(f.dir, name)
	f.fleetctl(0, "ssh-config", "--dir", f.dir, "--known-hosts", path, "-o", path+".conf", "--bastion", f.address)
	data, err := os.ReadFile(path)
	if err != nil {
		f.t.Fatal(err)
	}
	public, err := os.ReadFile(filepath.Join(f.dir, "public", "known_hosts"))
	if err != nil || !bytes.Equal(data, public) {
		f.t.Fatalf("%s is not the published one (%v)", name, err)
	}
	return path
}

// believes asks OpenSSH whether it goes on with the host, and wants not a word from it if so.
func (f *caFleet) believes(what, known string, cert ssh.Signer, want bool) {
	f.t.Helper()
	f.mu.Lock()
	f.cert = cert
	f.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "ssh", "-F", known+".conf", "-o", "BatchMode=yes", "-o", "IdentityFile=none", "-o", "IdentityAgent=none", "-l", "alice", "gate", "true")
	out, err := cmd.CombinedOutput()
	if err == nil {
		f.t.Fatalf("%s: the login worked", what)
	}
	said := strings.TrimSpace(string(out))
	verified := said == "alice@127.0.0.1: Permission denied (publickey)."
	if !verified && want || verified && !want {
		f.t.Errorf("%s: ssh said\n%s", what, said)
	}
	if !want && !strings.Contains(said, "verification failed") && !strings.Contains(said, "REVOKED") {
		f.t.Errorf("%s: refused, but ssh said\n%s", what, said)
	}
}

// TestCARotation is a whole rotation as OpenSSH sees it: never a warning for who has the known_hosts of one step before, and no belief
// in the old CA once it is retired.
func TestCARotation(t *testing.T) {
	if _, err := exec.LookPath("ssh"); err != nil {
		t.Skip("no OpenSSH client on this machine: apt-get install openssh-client")
	}
	f := newCAFleet(t)
	byA := f.certify()
	known0 := f.knownHosts("known0")
	f.believes("before", known0, byA, true)

	f.fleetctl(0, "ca", "rotate", "--dir", f.dir)
	known1 := f.knownHosts("known1")
	published := f.certify()
	for _, known := range []string{known0, known1} {
		f.believes("the next CA is published", known, published, true)
	}
	if _, talk := f.fleetctl(command.Refused, "ca", "rotate", "--dir", f.dir); !strings.Contains(talk, "public for") {
		t.Errorf("a CA that was published just now signs: %s", talk)
	}

	f.fleetctl(0, "ca", "rotate", "--dir", f.dir, "--overlap", "0s")
	known2 := f.knownHosts("known2")
	byB := f.certify()
	for _, known := range []string{known1, known2} {
		f.believes("switched, the host has not renewed", known, byA, true)
		f.believes("switched, the host has renewed", known, byB, true)
	}
	f.believes("who did not fetch known_hosts for the whole overlap", known0, byB, false)

	a, b := fingerprintOfCA(byA), fingerprintOfCA(byB)
	if _, talk := f.fleetctl(command.Refused, "ca", "retire", "--dir", f.dir, a); !strings.Contains(talk, "are valid until") {
		t.Errorf("retired while its certificates are valid: %s", talk)
	}
	f.fleetctl(command.Refused, "ca", "retire", "--dir", f.dir, b) // it signs
	f.fleetctl(command.Failed, "ca", "retire", "--dir", f.dir, "SHA256:none")
	f.fleetctl(0, "ca", "retire", "--dir", f.dir, "--compromised", a)
	f.fleetctl(0, "ca", "retire", "--dir", f.dir, a) // again: nothing more
	known3 := f.knownHosts("known3")
	f.believes("retired", known3, byB, true)
	f.believes("by the retired CA", known3, byA, false)
	data, err := os.ReadFile(known3)
	if err != nil {
		t.Fatal(err)
	}
	// @revoked is stronger than somebody's old line.
	ca := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(byA.PublicKey().(*ssh.Certificate).SignatureKey)))
	if err := os.WriteFile(known3, append(data, "@cert-authority * "+ca+"\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	f.believes("by the retired CA, which an old line still names", known3, byA, false)
	left, err := filepath.Glob(filepath.Join(f.dir, "signer", "ssh-host-ca*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range left {
		if name := filepath.Base(path); name == "ssh-host-ca" || name == "ssh-host-ca.pub" {
			t.Errorf("the retired CA's %s is still there", name)
		}
	}
	out, _ := f.fleetctl(0, "ca", "list", "--dir", f.dir, "-o", "json")
	if !strings.Contains(out, `"fingerprint":"`+a+`","state":"retired"`) || !strings.Contains(out, `"fingerprint":"`+b+`","state":"current"`) {
		t.Errorf("ca list: %s", out)
	}
	// The current one in other hands: the next one signs at once.
	f.fleetctl(command.Refused, "ca", "retire", "--dir", f.dir, "--compromised", b) // there is no next one
	f.fleetctl(0, "ca", "rotate", "--dir", f.dir)
	f.fleetctl(0, "ca", "retire", "--dir", f.dir, "--compromised", b)
	byC := f.certify()
	known4 := f.knownHosts("known4")
	f.believes("the third CA", known4, byC, true)
	f.believes("by the compromised CA", known4, byB, false)
}

func fingerprintOfCA(s ssh.Signer) string {
	return ssh.FingerprintSHA256(s.PublicKey().(*ssh.Certificate).SignatureKey)
}

// TestKnownHostsOfHosts: a host that nobody rebuilds is known by its own key, and no CA speaks for it.
func TestKnownHostsOfHosts(t *testing.T) {
	f := newCAFleet(t)
	data, err := os.ReadFile(f.knownHosts("known"))
	if err != nil {
		t.Fatal(err)
	}
	want := "web-1.office.internal,web-1 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILmuPo8wAvzfd4IoqljYGIPIeq7tC8CdADuyro7FYkRI\n"
	if !strings.Contains(string(data), "\n"+want) || !strings.Contains(string(data), "@cert-authority gate.office.internal,gate,gate-2.office.internal,gate-2 ssh-ed25519 ") {
		t.Errorf("known_hosts:\n%s", data)
	}
	text, _ := f.fleetctl(0, "ssh-config", "--dir", f.dir)
	for _, want := range []string{"ssh -F FILE -J gate-2 SERVER", "    HostKeyAlgorithms ssh-ed25519\n", "Host gate gate-2 web-1\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("ssh_config has no %q:\n%s", want, text)
		}
	}
	// An older fleetctl's directory has no list yet.
	if err := os.Remove(filepath.Join(f.dir, "ssh-host-cas.json")); err != nil {
		t.Fatal(err)
	}
	if again, _ := f.fleetctl(0, "ssh-config", "--dir", f.dir); again != text { // the CA itself lies here
		t.Errorf("by the CA's own list:\n%s", again)
	}
	away := f.dir + "-away"
	if err := os.Rename(filepath.Join(f.dir, "signer"), away); err != nil {
		t.Fatal(err)
	}
	if _, talk := f.fleetctl(command.Failed, "ssh-config", "--dir", f.dir); !strings.Contains(talk, "ca publish") {
		t.Errorf("no hint: %s", talk)
	}
	if err := os.Rename(away, filepath.Join(f.dir, "signer")); err != nil {
		t.Fatal(err)
	}
	f.fleetctl(0, "ca", "publish", "--dir", f.dir)
	f.knownHosts("again")
}

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

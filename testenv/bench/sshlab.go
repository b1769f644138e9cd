package bench

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/sshsig"
	"mayfly/inventory"
	"mayfly/policies"
	"mayfly/policies/bundle"
	"mayfly/policies/trust"
	"mayfly/testenv/netlab"
	"mayfly/testenv/softkey"
)

// Addresses of the lab. Everything in crowd is a client's address as well.
const (
	clientAddress = "10.77.0.3"
	serverAddress = "10.77.0.2"
	targetAddress = "10.77.0.11"
	crowd         = "10.78.0.0/16"
	firstPort     = 2222 // of the servers: each has its own
	targetPort    = 22
)

// engineers is how many there are: one may have 1024 sessions at most.
const engineers = 8

// limits of the policy that a run is under.
type limits struct {
	usual bool // the policy's defaults, and not the most that it can ask for
}

// sshLab is two network namespaces and the files that the servers serve by. Every server has the same host key and knows the same
// users' keys.
type sshLab struct {
	dir       string
	tag       string
	clients   netlab.Namespace // and the target
	hostKey   ssh.Signer
	hostFile  string
	keys      []*softkey.Key
	approvers []ssh.Signer
	target    net.Listener
	port      int // of the server started last
}

func newSSHLab(ctx context.Context, dir string) (_ *sshLab, err error) {
	l := &sshLab{dir: dir, tag: fmt.Sprintf("mfb%x", os.Getpid()), hostFile: filepath.Join(dir, "host_key"), port: firstPort}
	l.clients = netlab.Namespace{Name: l.node(0)}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	if err := l.link(ctx); err != nil {
		return nil, err
	}
	if l.target, err = l.clients.Listen("tcp", fmt.Sprintf("%s:%d", targetAddress, targetPort)); err != nil {
		return nil, err
	}
	return l, l.writeKeys()
}

func (l *sshLab) node(side int) string { return fmt.Sprintf("%s-%d", l.tag, side) }

func (l *sshLab) link(ctx context.Context) error {
	c, s := l.node(0), l.node(1)
	return ip(ctx,
		[]string{"netns", "add", c}, []string{"netns", "add", s},
		[]string{"-n", c, "link", "set", "lo", "up"}, []string{"-n", s, "link", "set", "lo", "up"},
		[]string{"-n", c, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", s},
		[]string{"-n", c, "addr", "add", clientAddress + "/24", "dev", "eth0"},
		[]string{"-n", c, "addr", "add", targetAddress + "/24", "dev", "eth0"},
		[]string{"-n", s, "addr", "add", serverAddress + "/24", "dev", "eth0"},
		[]string{"-n", c, "link", "set", "eth0", "up"}, []string{"-n", s, "link", "set", "eth0", "up"},
		[]string{"-n", c, "route", "add", "local", crowd, "dev", "lo"},
		[]string{"-n", s, "route", "add", crowd, "via", clientAddress},
	)
}

func (l *sshLab) close() error {
	var errs []error
	if l.target != nil {
		errs = append(errs, l.target.Close())
	}
	for side := range 2 {
		if _, err := os.Stat("/var/run/netns/" + l.node(side)); err == nil {
			errs = append(errs, ip(context.Background(), []string{"netns", "del", l.node(side)}))
		}
	}
	return errors.Join(errs...)
}

// in is a command in a side's namespace, ended with ctx.
func (l *sshLab) in(ctx context.Context, side int, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", l.node(side)}, args...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopLimit
	return cmd
}

// dial connects to the server from a client's address; the zero address is the usual one.
func (r *running) dial(ctx context.Context, from netip.Addr) (_ net.Conn, err error) {
	defer recovered(&err)
	return r.lab.clients.DialContext(ctx, "tcp", fmt.Sprintf("%s:%d", serverAddress, r.port), from)
}

func newSigner() (ssh.Signer, ed25519.PrivateKey, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	signer, err := ssh.NewSignerFromKey(private)
	return signer, private, err
}

func line(key ssh.PublicKey) string { return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))) }

// writeKeys makes the host key with a certificate, the users' keys, and the approvers.
func (l *sshLab) writeKeys() error {
	var private ed25519.PrivateKey
	var err error
	if l.hostKey, private, err = newSigner(); err != nil {
		return err
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		return err
	}
	ca, _, err := newSigner()
	if err != nil {
		return err
	}
	certificate := ssh.Certificate{Key: l.hostKey.PublicKey(), CertType: ssh.HostCert, ValidPrincipals: []string{"bastion", serverAddress},
		ValidAfter: uint64(time.Now().Add(-time.Minute).Unix()), ValidBefore: uint64(time.Now().Add(time.Hour).Unix())}
	if err := certificate.SignCert(rand.Reader, ca); err != nil {
		return err
	}
	var known []byte
	for range engineers {
		key, err := softkey.New(rand.Reader)
		if err != nil {
			return err
		}
		l.keys = append(l.keys, key)
		known = append(known, key.Authorized()+"\n"...)
	}
	for range 2 {
		approver, _, err := newSigner()
		if err != nil {
			return err
		}
		l.approvers = append(l.approvers, approver)
	}
	return errors.Join(
		os.WriteFile(l.hostFile, pem.EncodeToMemory(block), 0o600),
		os.WriteFile(l.path("host_key-cert.pub"), ssh.MarshalAuthorizedKey(&certificate), 0o644),
		os.WriteFile(l.path("authorized_keys"), known, 0o600),
		os.WriteFile(l.path("known_hosts"), []byte("* "+line(l.hostKey.PublicKey())+"\n"), 0o644),
	)
}

func (l *sshLab) path(name string) string { return filepath.Join(l.dir, name) }

func engineer(i int) string { return fmt.Sprintf("engineer%d", i) }

// writeFleet writes trust, policy and configuration of a bastion into a directory of its own and returns its configuration's path.
func (l *sshLab) writeFleet(dir string, port int, lim limits) (string, error) {
	var people []trust.Person
	for i, approver := range l.approvers {
		people = append(people, trust.Person{Name: fmt.Sprintf("approver%d", i), Keys: []string{line(approver.PublicKey())}})
	}
	var more []string
	for range 2 {
		signer, _, err := newSigner()
		if err != nil {
			return "", err
		}
		more = append(more, line(signer.PublicKey()))
	}
	tr := trust.Trust{Kind: trust.Kind, Fleet: "bench", Test: true, Version: 1, Threshold: 2, Approvers: people, TicketKeys: more[:1], ListKeys: more[1:]}
	trusted, err := tr.Marshal()
	if err != nil {
		return "", err
	}
	fleet := inventory.Fleet{
		Name: "bench", Domain: "bench.internal", Test: true,
		Network:    inventory.Network{Management: []netip.Prefix{netip.MustParsePrefix("10.77.0.0/24")}, Gateway: netip.MustParseAddr("10.77.0.1")},
		Controller: inventory.Controller{Address: netip.MustParseAddr("10.77.0.1"), BootPort: 80, JoinPort: 443, CheckinPort: 8443},
		Bastions:   []inventory.Bastion{{Name: "bastion", Address: netip.MustParseAddr(serverAddress), Port: uint16(port)}},
		Regions:    []inventory.Region{{Name: "se"}},
		Racks:      []inventory.Rack{{Name: "se-a", Region: "se"}},
		Servers: []inventory.Server{{Name: "se-1", Rack: "se-a", Role: "vpn", Address: netip.MustParsePrefix(targetAddress + "/24"), Capacity: 1000,
			Tunnel: netip.MustParsePrefix("10.64.1.0/24"), Power: inventory.Power{Driver: "qemu", Tap: "tap1", MAC: "52:54:00:00:00:11", MemoryMiB: 512}}},
	}
	policy := policies.Policy{
		Version: 1, Expires: time.Now().Add(24 * time.Hour).UTC().Truncate(time.Second),
		SSH:      policies.SSH{Level: policies.PQPreferred, Allow: []netip.Prefix{netip.MustParsePrefix("10.77.0.0/24"), netip.MustParsePrefix(crowd)}},
		Hardware: policies.Hardware{TestRoots: []string{"softkey"}},
		Grants:   []policies.Grant{{Servers: []string{"*"}, Ports: []uint16{targetPort}}},
		Rotation: policies.Rotation{MaxAge: policies.Duration(24 * time.Hour), MaxParallel: 1, DrainLimit: policies.Duration(time.Minute), BootLimit: policies.Duration(time.Minute)},
	}
	if !lim.usual {
		policy.SSH.MaxStartups, policy.SSH.MaxPerSource, policy.SSH.MaxSessions, policy.SSH.MaxPerEngineer = 4096, 1024, 16384, 1024
	}
	for i, key := range l.keys {
		policy.Engineers = append(policy.Engineers, policies.Engineer{Name: engineer(i), Keys: []policies.Key{{Public: key.Authorized(), Evidence: "test:softkey"}}})
		policy.Grants[0].Engineers = append(policy.Grants[0].Engineers, engineer(i))
	}
	data, err := bundle.Make(fleet, policy, time.Now())
	if err != nil {
		return "", err
	}
	var signatures []byte
	for _, approver := range l.approvers {
		signature, err := sshsig.Sign(approver, bundle.Namespace, data)
		if err != nil {
			return "", err
		}
		signatures = append(signatures, signature...)
	}
	path := filepath.Join(dir, "bastion.toml")
	config := fmt.Sprintf("listen = \"%s:%d\"\ntrust = \"trust.json\"\nbundle = \"bundle.json\"\nhost_key = %q\nhost_certificate = %q\naudit = \"audit\"\ncontrol = \"control.sock\"\n",
		serverAddress, port, l.hostFile, l.path("host_key-cert.pub"))
	return path, errors.Join(
		os.WriteFile(filepath.Join(dir, "trust.json"), trusted, 0o644),
		os.WriteFile(filepath.Join(dir, "bundle.json.sig"), signatures, 0o644),
		os.WriteFile(filepath.Join(dir, "bundle.json"), data, 0o644),
		os.WriteFile(path, []byte(config), 0o644),
	)
}

package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"mayfly/internal/durable"
	"mayfly/inventory"
	"mayfly/policies/bundle"
	"mayfly/rebuild/join"
	"mayfly/rebuild/release"
	"mayfly/rebuild/ticket"
)

// A bastion's files, all in RAM. What it is configured by belongs to root, so that whoever takes the program over cannot change it; the
// host key is readable by its user, and its own are two directories.
const (
	bastionName   = "bastion"
	bastionUID    = 104 // mayfly-bastion in the image
	gateDir       = runDir + "/bastion"
	gateConf      = gateDir + "/bastion.toml"
	gateTrust     = gateDir + "/trust.json"
	gateBundle    = gateDir + "/bundle.json"
	gateKey       = gateDir + "/host_key"
	gateCert      = gateDir + "/host_key-cert.pub"
	gateAudit     = gateDir + "/audit"
	gateSockets   = gateDir + "/run"
	gateControl   = gateSockets + "/control.sock"
	gateStop      = "5s" // for who is in, when the machine is switched off without a drain
	gateAuditSize = "mode=0700,size=50%,nr_inodes=64k,uid=104,gid=104"
	kindControl   = "mayfly-bastion-control/1"
	maxGateAnswer = 8 << 20
	maxWhy        = 160
	whyWait       = 100 * time.Millisecond // for the last words of a program that has ended
)

// gate is what a machine has that is a bastion.
type gate struct {
	link    *join.AuditLink
	control string // the bastion's control socket

	mu  sync.Mutex // guards why
	why string     // it ended, in its own words
}

// becomeRole finds out, by the signed bundle, what the machine is in this life.
func (m *machine) becomeRole(data, sig []byte, now time.Time) error {
	b, err := openBundle(m.papers.trust, data, sig, now, m.papers.statement.MinPolicy, m.papers.ticket.Server)
	if err != nil {
		return err
	}
	if server, _ := b.Inventory.Server(m.papers.ticket.Server); server.Role != inventory.RoleBastion {
		return nil
	}
	m.con.stage("bastion")
	for _, d := range []struct {
		path string
		mode os.FileMode
		uid  int
	}{{gateDir, 0o755, 0}, {gateAudit, 0o700, bastionUID}, {gateSockets, 0o700, bastionUID}} {
		if err := makeDirectory(d.path, d.mode, d.uid); err != nil {
			return err
		}
	}
	if err := unix.Mount("tmpfs", gateAudit, "tmpfs", quiet, gateAuditSize); err != nil {
		return fmt.Errorf("mounting %s: %w", gateAudit, err)
	}
	policy, err := readPaper(runDir + "/" + ticket.TrustFile)
	if err != nil {
		return fmt.Errorf("reading the trust policy: %w", err)
	}
	m.gate = &gate{link: m.client.AuditLink(func() tls.Certificate { pair, _ := m.pairNow(); return pair }), control: gateControl}
	return errors.Join(
		durable.WriteFile(gateTrust, policy, 0o644),
		durable.WriteFile(gateConf, bastionConfiguration(m.papers.ticket.Address.Addr(), m.papers.ticket.Epoch, b.Inventory.Witnesses), 0o644),
	)
}

// bastionConfiguration is bastion.toml, which `bastion serve` reads (its package is not linked here: what is shared is the file).
func bastionConfiguration(own netip.Addr, epoch uint64, witnesses []string) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "listen = %q\n", netip.AddrPortFrom(own, inventory.PortSSH))
	for _, l := range [][2]string{
		{"trust", gateTrust}, {"bundle", gateBundle}, {"host_key", gateKey}, {"host_certificate", gateCert}, {"audit", gateAudit},
		{"control", gateControl}, {"drain_limit", gateStop}, {"audit_replica", "http://" + auditLinkAt.String()},
	} {
		fmt.Fprintf(&b, "%s = %q\n", l[0], l[1])
	}
	fmt.Fprintf(&b, "audit_life = %d\n", epoch)
	if len(witnesses) > 0 {
		fmt.Fprintf(&b, "witnesses = [%s]\n", quoted(witnesses))
	}
	return []byte(b.String())
}

func quoted(list []string) string {
	var q []string
	for _, s := range list {
		q = append(q, strconv.Quote(s))
	}
	return strings.Join(q, ", ")
}

// service runs as its own user. Of root's powers it has that to listen on port 22, and that to filter its own socket, without which this kernel
// takes no filter. The sandbox gives both up once it listens, but for the second on a kernel that wants it each time: then it opens no netlink.
func (g *gate) service() spec {
	return spec{name: bastionName, said: g.said, why: g.because, path: release.BastionPath, args: []string{"serve", "--config", gateConf}, uid: bastionUID, caps: []uintptr{unix.CAP_NET_BIND_SERVICE, unix.CAP_NET_ADMIN}}
}

// errorPrefix begins the one line that says why the bastion does not go on. Everything else that it says is its log, which nobody keeps.
const errorPrefix = "bastion: error: "

// said keeps why the bastion ended. What it is about is its own files and sockets, and never what somebody sent.
func (g *gate) said(r io.ReadCloser) {
	defer r.Close()
	in := bufio.NewReaderSize(r, 4<<10)
	for {
		line, err := in.ReadSlice('\n')
		if text, ok := strings.CutPrefix(string(line), errorPrefix); ok {
			g.mu.Lock()
			g.why = clip(strings.TrimSpace(text), maxWhy)
			g.mu.Unlock()
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}

// because is what the bastion said last, once.
func (g *gate) because() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	why := g.why
	g.why = ""
	return why
}

func (g *gate) key(pem []byte) error { return writeOwned(gateKey, pem, 0o600, bastionUID) }

func (g *gate) certificate(line string) error {
	return durable.WriteFile(gateCert, []byte(line+"\n"), 0o644)
}

// apply hands a policy to the bastion, which verifies it itself, and lets the policy's addresses in.
func (g *gate) apply(b *bundle.Bundle, data, sig []byte, reload func(string) error) error {
	if err := errors.Join(durable.WriteFile(gateBundle+".sig", sig, 0o644), durable.WriteFile(gateBundle, data, 0o644)); err != nil {
		return err
	}
	return errors.Join(applyRules(&nftables.Conn{}, bastionRules(allowedNetworks(b.Policy))), reload(bastionName))
}

// serveGate runs a bastion, and beside it nothing that answers anybody.
func (b *boot) serveGate(ctx context.Context, m *machine, server inventory.Server) error {
	if err := serveAuditLink(ctx, m.gate.link); err != nil {
		return coded(codeServices, err)
	}
	b.end.onServices(m.sup.wg.Wait)
	b.stay(ctx, m, server, m.gate.service())
	return nil
}

// gateAnswer is what is used of the control socket's answers (docs/formats/control.md).
type gateAnswer struct {
	Error  string `json:"error"`
	Status *struct {
		Audit struct {
			Works bool `json:"works"`
		} `json:"audit"`
	} `json:"status"`
}

// ask puts one question to the control socket.
func (g *gate) ask(ctx context.Context, do, limit string) (a gateAnswer, err error) {
	fail := func(err error) (gateAnswer, error) { return a, fmt.Errorf("asking the bastion: %w", err) }
	d := net.Dialer{Timeout: controlDeadline}
	conn, err := d.DialContext(ctx, "unix", g.control)
	if err != nil {
		return fail(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(controlDeadline)); err != nil {
		return fail(err)
	}
	question, err := json.Marshal(struct {
		Kind  string `json:"kind"`
		Do    string `json:"do"`
		Limit string `json:"limit,omitempty"`
	}{kindControl, do, limit})
	if err != nil {
		return fail(err)
	}
	if _, err := conn.Write(append(question, '\n')); err != nil {
		return fail(err)
	}
	line, err := bufio.NewReader(io.LimitReader(conn, maxGateAnswer)).ReadBytes('\n')
	if err != nil {
		return fail(err)
	}
	if err := json.Unmarshal(line, &a); err != nil {
		return fail(err)
	}
	if a.Error != "" {
		return fail(fmt.Errorf("%.200q", a.Error))
	}
	return a, nil
}

// probe wants a bastion that could let somebody in: it answers, and its records reach the controller.
func (g *gate) probe(ctx context.Context) error {
	a, err := g.ask(ctx, "status", "")
	if err == nil && (a.Status == nil || !a.Status.Audit.Works) {
		err = errors.New("the bastion's audit log does not work")
	}
	return err
}

// drain lets who is in go on for a while, and waits until the bastion has ended, with all of its log at the controller.
func (g *gate) drain(ctx context.Context, sup *supervisor, limit time.Duration) (forced bool) {
	sup.retire(bastionName)
	began, ordered := time.Now(), false
	for end := began.Add(limit + drainGrace); time.Now().Before(end); time.Sleep(drainLook) {
		if sup.state(bastionName) == stateOver {
			return time.Since(began) >= limit
		}
		if !ordered {
			_, err := g.ask(ctx, "drain", limit.String())
			ordered = err == nil
		}
	}
	return true
}

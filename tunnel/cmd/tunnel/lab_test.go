package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/crypto/ssh"

	"mayfly/internal/canonical"
	"mayfly/internal/pki"
	"mayfly/internal/sshsig"
	"mayfly/policies/trust"
	"mayfly/tunnel/checkin"
	"mayfly/tunnel/device"
	"mayfly/tunnel/server"
)

// TestMain lets the test binary be the program under test: real processes in real network namespaces, with the race detector
// where the test has it.
func TestMain(m *testing.M) {
	if os.Getenv("MAYFLY_TEST_TUNNEL") == "1" {
		os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

const (
	patience = 30 * time.Second // for anything that is waited for
	domain   = "fleet.test"
)

// lab is a small internet, one network namespace for each machine, all on one bridge in core, which routes:
//
//	cli1 198.51.100.10   cli2 198.51.100.11        users
//	core .1 of each network, 10.77.0.1             check-in, and a management service
//	srv1 10.77.0.11      srv2 10.77.0.12           VPN servers, management 10.77.0.0/24
//	tgt  203.0.113.10                              a web target with no way back to 198.51.100.0/24
type lab struct {
	t      *testing.T
	prefix string
	dir    string
	seen   chan string // remote addresses that the target's web server saw, the newest only

	ca      *pki.CA
	caPEM   []byte
	listKey ssh.Signer
	config  checkin.ClientConfig
}

// labs numbers the labs of this process.
var labs atomic.Int32

func newLab(t *testing.T) *lab {
	t.Helper()
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes network namespaces")
	}
	l := &lab{t: t, prefix: fmt.Sprintf("mft%x-%d-", os.Getpid(), labs.Add(1)), dir: t.TempDir(), seen: make(chan string, 1)}
	l.node("core")
	l.ip("core", "link", "add", "br0", "type", "bridge")
	for _, a := range []string{"10.77.0.1/24", "198.51.100.1/24", "203.0.113.1/24"} {
		l.ip("core", "addr", "add", a, "dev", "br0")
	}
	l.ip("core", "link", "set", "br0", "up")
	l.run("core", "sysctl", "-qw", "net.ipv4.ip_forward=1")
	l.attach("cli1", "198.51.100.10/24", "default", "198.51.100.1")
	l.attach("cli2", "198.51.100.11/24", "default", "198.51.100.1")
	l.attach("srv1", "10.77.0.11/24", "default", "10.77.0.1")
	l.attach("srv2", "10.77.0.12/24", "default", "10.77.0.1")
	l.attach("tgt", "203.0.113.10/24", "10.77.0.0/24", "203.0.113.1")
	l.trust()
	l.serveHTTP("tgt", "203.0.113.10:80", http.HandlerFunc(l.target), nil)
	l.serveHTTP("core", "10.77.0.1:8080", http.HandlerFunc(l.target), nil)
	return l
}

// target answers with as many bytes as it is asked for, and notes who asked.
func (l *lab) target(w http.ResponseWriter, r *http.Request) {
	select {
	case <-l.seen:
	default:
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	l.seen <- host
	size := 5
	if _, err := fmt.Sscanf(r.URL.Query().Get("size"), "%d", &size); err != nil {
		size = 5
	}
	if _, err := io.CopyN(w, zeros{}, int64(size)); err != nil {
		return
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func (l *lab) node(name string) {
	l.t.Helper()
	l.host("ip", "netns", "add", l.prefix+name)
	l.t.Cleanup(func() { l.host("ip", "netns", "del", l.prefix+name) })
	l.ip(name, "link", "set", "lo", "up")
}

func (l *lab) attach(name, address, to, via string) {
	l.t.Helper()
	l.node(name)
	l.ip(name, "link", "add", "eth0", "type", "veth", "peer", "name", name, "netns", l.prefix+"core")
	l.ip("core", "link", "set", name, "master", "br0", "up")
	l.ip(name, "addr", "add", address, "dev", "eth0")
	l.ip(name, "link", "set", "eth0", "up")
	l.ip(name, "route", "add", to, "via", via)
}

func (l *lab) host(name string, args ...string) {
	l.t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		l.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

func (l *lab) ip(node string, args ...string) {
	l.t.Helper()
	l.host("ip", append([]string{"-n", l.prefix + node}, args...)...)
}

func (l *lab) run(node string, args ...string) {
	l.t.Helper()
	l.host("ip", append([]string{"netns", "exec", l.prefix + node}, args...)...)
}

func (l *lab) sysctl(node, key string) string {
	l.t.Helper()
	out, err := l.inNode(node, "sysctl", "-n", key).Output()
	if err != nil {
		l.t.Fatalf("reading %s of %s: %v", key, node, err)
	}
	return strings.TrimSpace(string(out))
}

// in runs f in a node's network namespace. Sockets that f makes stay there.
func in[T any](l *lab, node string, f func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		var r result
		ns, err := netns.GetFromName(l.prefix + node)
		if err == nil {
			err = errors.Join(netns.Set(ns), ns.Close())
		}
		if err == nil {
			r.value, err = f()
		}
		r.err = err
		done <- r
	}()
	r := <-done
	return r.value, r.err
}

func (l *lab) dial(node string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		return in(l, node, func() (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, address)
		})
	}
}

func (l *lab) serveHTTP(node, address string, h http.Handler, c *tls.Config) {
	l.t.Helper()
	listener, err := in(l, node, func() (net.Listener, error) { return net.Listen("tcp", address) })
	if err != nil {
		l.t.Fatal(err)
	}
	if c != nil {
		listener = tls.NewListener(listener, c)
	}
	srv := &http.Server{Handler: h, ErrorLog: log.New(io.Discard, "", 0)}
	var running sync.WaitGroup
	running.Go(func() {
		if err := srv.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			l.t.Errorf("serving %s: %v", address, err)
		}
	})
	l.t.Cleanup(func() {
		if err := srv.Close(); err != nil {
			l.t.Error(err)
		}
		running.Wait()
	})
}

// fetch pulls from the target as a program on node does, on a connection of its own.
func (l *lab) fetch(node, url string, limit time.Duration) error {
	c := http.Client{Timeout: limit, Transport: &http.Transport{DialContext: l.dial(node), DisableKeepAlives: true}}
	resp, err := c.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

// trust makes the fleet's CA and list key, and serves check-in.
func (l *lab) trust() {
	l.t.Helper()
	caPEM, caKey, err := pki.NewCA("test CA", time.Now(), domain)
	if err != nil {
		l.t.Fatal(err)
	}
	if l.ca, err = pki.LoadCA(caPEM, caKey); err != nil {
		l.t.Fatal(err)
	}
	l.caPEM = caPEM
	l.listKey = newKey(l.t)
	l.config = checkin.ClientConfig{
		Fleet: "test", Domain: domain, CA: string(caPEM), Checkin: "10.77.0.1:7445", Name: "checkin." + domain,
		ListKeys: []string{trust.FormatKey(l.listKey.PublicKey())},
	}
	pair := l.certificate("checkin."+domain, filepath.Join(l.dir, "checkin"))
	l.serveHTTP("core", l.config.Checkin, checkin.Handler(filepath.Join(l.dir, "list.json")), &tls.Config{Certificates: []tls.Certificate{pair}})
}

func newKey(t *testing.T) ssh.Signer {
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

// certificate writes PATH.pem and PATH.key for name.
func (l *lab) certificate(name, path string) tls.Certificate {
	l.t.Helper()
	keyPEM, csrFor, err := pki.NewKey()
	if err != nil {
		l.t.Fatal(err)
	}
	csr, err := csrFor(name)
	if err != nil {
		l.t.Fatal(err)
	}
	chain, _, err := l.ca.Issue(csr, name, nil, true, false, time.Now(), time.Hour)
	if err != nil {
		l.t.Fatal(err)
	}
	l.write(path+".pem", chain)
	l.write(path+".key", keyPEM)
	pair, err := tls.X509KeyPair(chain, keyPEM)
	if err != nil {
		l.t.Fatal(err)
	}
	return pair
}

func (l *lab) write(path string, data []byte) {
	l.t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		l.t.Fatal(err)
	}
}

// publish signs a list of servers; change, if there is one, may spoil it before.
func (l *lab) publish(change func(*checkin.List), servers ...checkin.Server) {
	l.t.Helper()
	now := time.Now().UTC().Truncate(time.Millisecond)
	list := checkin.List{Kind: checkin.Kind, Fleet: "test", Issued: now, Expires: now.Add(2 * time.Minute), Servers: servers}
	if change != nil {
		change(&list)
	}
	data, err := list.Marshal()
	if err != nil {
		l.t.Fatal(err)
	}
	sig, err := sshsig.Sign(l.listKey, checkin.Namespace, data)
	if err != nil {
		l.t.Fatal(err)
	}
	l.publishSigned(checkin.Signed{List: data, Signature: sig})
}

func (l *lab) publishSigned(s checkin.Signed) {
	l.t.Helper()
	data, err := json.Marshal(s)
	if err != nil {
		l.t.Fatal(err)
	}
	l.write(filepath.Join(l.dir, "list.json"), data)
}

func entry(node string, draining bool) checkin.Server {
	address := map[string]string{"srv1": "10.77.0.11", "srv2": "10.77.0.12"}[node]
	return checkin.Server{Name: node, Region: "se", Address: netip.MustParseAddr(address), Register: 7443, Draining: draining}
}

// server starts a VPN server and returns it when it is ready.
func (l *lab) server(node, network string) *process {
	l.t.Helper()
	l.configure(node, network)
	return l.serve(node)
}

// configure writes what a server needs.
func (l *lab) configure(node, network string) {
	l.t.Helper()
	base := filepath.Join(l.dir, node)
	if err := os.MkdirAll(base, 0o700); err != nil {
		l.t.Fatal(err)
	}
	l.certificate(node+"."+domain, filepath.Join(base, "tls"))
	private, err := device.NewPrivateKey()
	if err != nil {
		l.t.Fatal(err)
	}
	l.write(filepath.Join(base, "wg.key"), []byte(private.Base64()+"\n"))
	c := server.Config{
		Name: node, FQDN: node + "." + domain, Listen: netip.MustParseAddrPort("0.0.0.0:51820"), Register: ":7443",
		Network: netip.MustParsePrefix(network), Certificate: filepath.Join(base, "tls.pem"), Key: filepath.Join(base, "tls.key"),
		PrivateKey: filepath.Join(base, "wg.key"), Control: filepath.Join(base, "control.sock"), Life: filepath.Join(base, "life"),
		Management: []netip.Prefix{netip.MustParsePrefix("10.77.0.0/24")}, Outside: "eth0",
	}
	data, err := json.Marshal(c)
	if err != nil {
		l.t.Fatal(err)
	}
	l.write(filepath.Join(base, "server.json"), data)
}

// serve starts a server that was configured before.
func (l *lab) serve(node string) *process {
	l.t.Helper()
	p := l.start(node, "server", "--config", filepath.Join(l.dir, node, "server.json"))
	p.says("msg=ready")
	return p
}

// control asks a server's control socket.
func (l *lab) control(node, method, path, body string) server.Status {
	l.t.Helper()
	c := http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(l.dir, node, "control.sock"))
		},
	}}
	req, err := http.NewRequest(method, "http://control"+path, strings.NewReader(body))
	if err != nil {
		l.t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		l.t.Fatal(err)
	}
	defer resp.Body.Close()
	var s server.Status
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil || resp.StatusCode != http.StatusOK {
		l.t.Fatalf("%s %s: %s, %v", method, path, resp.Status, err)
	}
	return s
}

// clientConfig writes client.json, changed by change if there is one, and returns its path.
func (l *lab) clientConfig(change func(*checkin.ClientConfig)) string {
	l.t.Helper()
	c := l.config
	if change != nil {
		change(&c)
	}
	data, err := canonical.Marshal(c)
	if err != nil {
		l.t.Fatal(err)
	}
	f, err := os.CreateTemp(l.dir, "client-*.json")
	if err != nil {
		l.t.Fatal(err)
	}
	if _, err := f.Write(data); err != nil {
		l.t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		l.t.Fatal(err)
	}
	return f.Name()
}

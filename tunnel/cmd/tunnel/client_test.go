package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
)

// TestClient is the whole way: check in, register, carry, move, leave, clean up.
func TestClient(t *testing.T) {
	l := newLab(t)
	srv1 := l.server("srv1", "10.64.1.0/24")
	l.publish(nil, entry("srv1", false))
	resolv := filepath.Join(l.dir, "resolv.conf")
	l.write(resolv, []byte("nameserver 192.0.2.1\n"))

	if err := l.fetch("cli1", "http://203.0.113.10/", 2*time.Second); err == nil {
		t.Fatal("the target answers without a tunnel: the test would show nothing")
	}
	if err := l.fetch("cli1", "http://10.77.0.1:8080/", 5*time.Second); err != nil {
		t.Fatalf("the management service does not answer outside the tunnel: %v", err)
	}
	l.ip("core", "addr", "add", "169.254.169.254/32", "dev", "br0") // where clouds keep a machine's own secrets
	l.serveHTTP("core", "169.254.169.254:80", http.HandlerFunc(l.target), nil)
	if err := l.fetch("srv1", "http://169.254.169.254/", 5*time.Second); err != nil {
		t.Fatalf("the server's link-local service does not answer it: %v", err)
	}
	// Through the tunnel go the target, and what is the server's own, to be refused there.
	cli := l.start("cli1", "client", "--config", l.clientConfig(nil), "--route", "203.0.113.0/24", "--route", "10.77.0.0/24",
		"--route", "169.254.0.0/16", "--resolv-conf", resolv)
	up := cli.event("up")
	if up.Server != "srv1" || up.Interface != "mayfly0" || up.DNS.String() != "10.64.1.1" {
		t.Fatalf("up: got %+v", up)
	}

	t.Run("carries", func(t *testing.T) {
		if err := l.fetch("cli1", "http://203.0.113.10/?size=3000000", patience); err != nil {
			t.Fatal(err)
		}
		if got := <-l.seen; got != "10.77.0.11" {
			t.Errorf("the target saw %s, want the server's 10.77.0.11 and never the inner %s", got, up.Address)
		}
		for _, to := range []string{"203.0.113.10", "10.64.1.1"} {
			if err := ping(l, "cli1", to); err != nil {
				t.Errorf("ping %s: %v", to, err)
			}
		}
	})
	t.Run("resolver", func(t *testing.T) {
		if got := text(t, resolv); !strings.Contains(got, "nameserver 10.64.1.1\n") || strings.Contains(got, "192.0.2.1") {
			t.Errorf("resolv.conf is %q", got)
		}
	})
	t.Run("management unreachable", func(t *testing.T) {
		for _, address := range []string{"10.77.0.1:8080", "169.254.169.254:80", "10.77.0.11:7443", "10.77.0.12:22", "10.64.1.1:7443", "10.64.1.1:22"} {
			if c, err := dialFrom(l, "cli1", up.Address.String(), address); err == nil {
				c.Close()
				t.Errorf("%s answers through the tunnel", address)
			}
		}
	})
	t.Run("other client unreachable", func(t *testing.T) {
		second := l.start("cli2", "client", "--config", l.clientConfig(nil), "--route", "203.0.113.0/24")
		other := second.event("up")
		l.serveHTTP("cli2", other.Address.String()+":8081", http.HandlerFunc(l.target), nil)
		if err := l.fetch("cli2", "http://"+other.Address.String()+":8081/", 5*time.Second); err != nil {
			t.Fatalf("the other client's service does not answer itself: %v", err)
		}
		if c, err := dialFrom(l, "cli1", up.Address.String(), other.Address.String()+":8081"); err == nil {
			c.Close()
			t.Error("one client reaches another through the server")
		}
		if got := l.control("srv1", "GET", "/status", "").Peers; got != 2 {
			t.Errorf("status says %d peers, want 2", got)
		}
		if code := second.stop(); code != 0 {
			t.Errorf("the second client ended with %d", code)
		}
		if got := l.control("srv1", "GET", "/status", "").Peers; got != 1 {
			t.Errorf("after a release status says %d peers, want 1", got)
		}
	})
	t.Run("moves", func(t *testing.T) { testMove(t, l, cli) })
	t.Run("one client a namespace", func(t *testing.T) {
		out, err := l.command("cli1", "client", "--config", l.clientConfig(nil)).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "another tunnel client runs here") {
			t.Errorf("got %v, %s", err, out)
		}
	})
	t.Run("cleans up", func(t *testing.T) {
		if code := cli.stop(); code != 0 {
			t.Errorf("exit code %d, want 0", code)
		}
		if got := text(t, resolv); got != "nameserver 192.0.2.1\n" {
			t.Errorf("resolv.conf is %q", got)
		}
		for _, args := range [][]string{{"rule"}, {"route", "show", "table", "all"}, {"link"}} {
			out, err := exec.Command("ip", append([]string{"-n", l.prefix + "cli1"}, args...)...).Output()
			if err != nil {
				t.Fatal(err)
			}
			for _, left := range []string{"mayfly", "6d617966", "775", "776", "760"} {
				if strings.Contains(string(out), left) {
					t.Errorf("ip %s still shows %q:\n%s", args[0], left, out)
				}
			}
		}
	})
	t.Run("server keeps no trace", func(t *testing.T) {
		if code := srv1.stop(); code != 0 {
			t.Errorf("exit code %d, want 0", code)
		}
		for _, secret := range []string{"198.51.100.", up.Address.String()} {
			if strings.Contains(srv1.stderr.String(), secret) {
				t.Errorf("the log holds %s:\n%s", secret, srv1.stderr)
			}
		}
		out, err := exec.Command("ip", "netns", "exec", l.prefix+"srv1", "nft", "list", "ruleset").Output()
		if err != nil || strings.Contains(string(out), "mayfly") {
			t.Errorf("nft still lists %s (%v)", out, err)
		}
	})
}

// testMove drains srv1 while a loop keeps fetching and one connection stays open: nothing may fail.
func testMove(t *testing.T, l *lab, cli *process) {
	l.server("srv2", "10.64.2.0/24")
	l.publish(nil, entry("srv1", false), entry("srv2", false))

	held, err := dialFrom(l, "cli1", "", "203.0.113.10:80")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()

	ctx, cancel := context.WithCancel(t.Context())
	type count struct{ fetched, failed int }
	counted := make(chan count)
	fetched := make(chan struct{}, 1)
	go func() {
		var n count
		defer func() { counted <- n }()
		for ctx.Err() == nil {
			if err := l.fetch("cli1", "http://203.0.113.10/?size=20000", 10*time.Second); err != nil {
				t.Errorf("fetch %d: %v", n.fetched, err)
				n.failed++
			}
			n.fetched++
			select {
			case fetched <- struct{}{}:
			default:
			}
		}
	}()
	<-fetched
	l.publish(nil, entry("srv1", true), entry("srv2", false))
	if s := l.control("srv1", "POST", "/drain", fmt.Sprintf(`{"limit_ns":%d}`, time.Minute)); !s.Draining || s.Drained {
		t.Errorf("after the order: %+v", s)
	}
	moved := cli.event("moved")
	if moved.From != "srv1" || moved.Server != "srv2" || moved.Reason != "draining" {
		t.Errorf("moved: got %+v", moved)
	}
	// The old connection still works on the old session after new ones have gone through the new server.
	for range 20 {
		<-fetched
	}
	if _, err := fmt.Fprintf(held, "GET /?size=7 HTTP/1.0\r\n\r\n"); err != nil {
		t.Errorf("the old connection: %v", err)
	}
	if err := held.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Error(err)
	}
	if n, err := held.Read(make([]byte, 100)); err != nil || n == 0 {
		t.Errorf("the old connection: read %d, %v", n, err)
	}
	if s := l.control("srv1", "GET", "/status", ""); s.Drained {
		t.Error("srv1 says drained while a client's connection is open")
	}
	held.Close()
	if left := cli.event("left"); left.Server != "srv1" {
		t.Errorf("left: got %+v", left)
	}
	limit := time.Now().Add(patience)
	for !l.control("srv1", "GET", "/status", "").Drained {
		if time.Now().After(limit) {
			t.Fatalf("srv1 is never drained: %+v", l.control("srv1", "GET", "/status", ""))
		}
		<-fetched
	}
	if l.control("srv1", "GET", "/status", "").Forced {
		t.Error("the drain was forced, want by itself")
	}
	cancel()
	n := <-counted
	if n.failed != 0 || n.fetched < 20 {
		t.Errorf("%d of %d fetches failed, want 0", n.failed, n.fetched)
	}
	t.Logf("%d fetches across the move, %d failed", n.fetched, n.failed)
	if err := l.fetch("cli1", "http://203.0.113.10/", patience); err != nil {
		t.Error(err)
	}
	for got := range l.seen {
		if got == "10.77.0.12" {
			break
		}
		t.Fatalf("after the move the target saw %s, want 10.77.0.12", got)
	}
}

func dialFrom(l *lab, node, local, address string) (net.Conn, error) {
	return in(l, node, func() (net.Conn, error) {
		d := net.Dialer{Timeout: 1500 * time.Millisecond}
		if local != "" {
			d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(local)}
		}
		return d.Dial("tcp", address)
	})
}

func text(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestEverything routes all through the tunnel, as is usual: check-in and the servers themselves stay outside, and IPv6 goes nowhere.
func TestEverything(t *testing.T) {
	l := newLab(t)
	l.run("cli1", "sysctl", "-qw", "net.ipv4.conf.all.src_valid_mark=0")
	l.server("srv1", "10.64.1.0/24")
	l.server("srv2", "10.64.2.0/24")
	l.publish(nil, entry("srv1", false))
	cli := l.start("cli1", "client", "--config", l.clientConfig(nil))
	cli.event("up")
	if err := l.fetch("cli1", "http://203.0.113.10/?size=100000", patience); err != nil {
		t.Error(err)
	}
	if got := <-l.seen; got != "10.77.0.11" {
		t.Errorf("the target saw %s, want 10.77.0.11", got)
	}
	if c, err := dialFrom(l, "cli1", "", "10.77.0.1:8080"); err == nil {
		c.Close()
		t.Error("a connection to the management network goes around the tunnel")
	}
	if c, err := dialFrom(l, "cli1", "", "[2001:db8::1]:80"); err == nil || !errors.Is(err, syscall.EHOSTUNREACH) {
		if err == nil {
			c.Close()
		}
		t.Errorf("IPv6: got %v, want it unreachable", err)
	}
	// The way to check-in and to the other server leads around the tunnel, or this would not be known.
	l.publish(nil, entry("srv1", true), entry("srv2", false))
	if moved := cli.event("moved"); moved.Server != "srv2" || moved.Reason != "draining" {
		t.Errorf("moved: got %+v", moved)
	}
	if err := l.fetch("cli1", "http://203.0.113.10/", patience); err != nil {
		t.Error(err)
	}
	cli.event("left")
	// A server that is gone from the list is left too.
	l.publish(nil, entry("srv1", false))
	if moved := cli.event("moved"); moved.Server != "srv1" || moved.Reason != "unlisted" {
		t.Errorf("moved: got %+v", moved)
	}
	if code := cli.stop(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	if got := l.sysctl("cli1", "net.ipv4.conf.all.src_valid_mark"); got != "0" {
		t.Errorf("left behind: src_valid_mark=%s", got)
	}
	out, err := exec.Command("ip", "-n", l.prefix+"cli1", "-6", "route", "show", "table", "all").Output()
	if err != nil || strings.Contains(string(out), "7751") {
		t.Errorf("left behind: %s, %v", out, err)
	}
}

// TestLost kills the server without a word: the client notices, lets nothing out around the tunnel, and comes back.
func TestLost(t *testing.T) {
	l := newLab(t)
	srv := l.server("srv1", "10.64.1.0/24")
	l.publish(nil, entry("srv1", false))
	// The target would not answer a packet that went around the tunnel; the management service would.
	cli := l.start("cli1", "client", "--config", l.clientConfig(nil), "--route", "203.0.113.0/24", "--route", "10.77.0.0/24")
	cli.event("up")
	if err := srv.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	srv.wait()
	l.publish(nil) // the controller has noticed
	if down := cli.event("down"); down.Reason != "lost" || down.Server != "srv1" {
		t.Errorf("down: got %+v", down)
	}
	cli.event("waiting")
	if c, err := dialFrom(l, "cli1", "", "10.77.0.1:8080"); err == nil {
		c.Close()
		t.Error("a connection goes around the tunnel while there is no server")
	}
	l.serve("srv1") // where a killed one has left its table and socket
	l.publish(nil, entry("srv1", false))
	if moved := cli.event("moved"); moved.Server != "srv1" || moved.Reason != "lost" {
		t.Errorf("moved: got %+v", moved)
	}
	if err := l.fetch("cli1", "http://203.0.113.10/", patience); err != nil {
		t.Error(err)
	}
	if code := cli.stop(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}

// TestInterfaceGone takes the interface away under the client: nothing may go around the tunnel until there is another.
func TestInterfaceGone(t *testing.T) {
	for _, c := range []struct {
		name string
		args []string
	}{{"everything", nil}, {"a route", []string{"--route", "10.77.0.0/24"}}} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t)
			l.server("srv1", "10.64.1.0/24")
			l.publish(nil, entry("srv1", false))
			if err := l.fetch("cli1", "http://10.77.0.1:8080/", 5*time.Second); err != nil {
				t.Fatalf("without a tunnel the service does not answer, the test would show nothing: %v", err)
			}
			cli := l.start("cli1", append([]string{"client", "--config", l.clientConfig(nil)}, c.args...)...)
			cli.event("up")
			l.publish(nil)
			l.ip("cli1", "link", "del", "mayfly0")
			if down := cli.event("down"); down.Reason != "lost" {
				t.Errorf("down: got %+v", down)
			}
			for _, address := range []string{"10.77.0.1:8080", "10.64.1.1:53"} {
				conn, err := dialFrom(l, "cli1", "", address)
				if err == nil {
					conn.Close()
				}
				if !errors.Is(err, syscall.EHOSTUNREACH) {
					t.Errorf("%s around the tunnel: got %v, want it unreachable", address, err)
				}
			}
			if code := cli.stop(); code != 0 {
				t.Errorf("exit code %d, want 0", code)
			}
			out, err := exec.Command("ip", "-n", l.prefix+"cli1", "route", "show", "table", "all").Output()
			if err != nil || strings.Contains(string(out), "unreachable") {
				t.Errorf("left behind: %s, %v", out, err)
			}
			if err := l.fetch("cli1", "http://10.77.0.1:8080/", 5*time.Second); err != nil {
				t.Errorf("after the client has ended: %v", err)
			}
		})
	}
}

// TestAddressOfThisMachine has a server give the client an address that it has already: what comes from there is none of the
// server's business.
func TestAddressOfThisMachine(t *testing.T) {
	l := newLab(t)
	l.server("srv1", "10.64.1.0/29")
	l.publish(nil, entry("srv1", false))
	for _, a := range []string{"2", "3", "4", "5", "6"} {
		l.ip("cli1", "addr", "add", "10.64.1."+a+"/32", "dev", "eth0")
	}
	cli := l.start("cli1", "client", "--config", l.clientConfig(nil), "--route", "203.0.113.0/24")
	cli.event("waiting")
	cli.says("this machine has that address already")
	if code := cli.stop(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}

// ping sends one echo request and waits for its answer.
func ping(l *lab, node, to string) error {
	conn, err := in(l, node, func() (*icmp.PacketConn, error) { return icmp.ListenPacket("ip4:icmp", "0.0.0.0") })
	if err != nil {
		return err
	}
	defer conn.Close()
	request := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: os.Getpid() & 0xffff, Seq: 1, Data: make([]byte, 1000)}}
	data, err := request.Marshal(nil)
	if err != nil {
		return err
	}
	if _, err := conn.WriteTo(data, &net.IPAddr{IP: net.ParseIP(to)}); err != nil {
		return err
	}
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	answer := make([]byte, 1500)
	for {
		n, from, err := conn.ReadFrom(answer)
		if err != nil {
			return err
		}
		if m, err := icmp.ParseMessage(1, answer[:n]); err == nil && m.Type == ipv4.ICMPTypeEchoReply && from.String() == to {
			return nil
		}
	}
}

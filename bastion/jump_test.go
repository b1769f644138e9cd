package bastion

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/policies"
	"mayfly/testenv/softkey"
)

// TestRefusedChannels pins what an engineer who is in gets refused, as the client hears it and as the log says it.
func TestRefusedChannels(t *testing.T) {
	direct := func(host string, port uint32) func(*ssh.Client) error {
		return func(c *ssh.Client) error {
			_, _, err := c.OpenChannel("direct-tcpip", ssh.Marshal(struct {
				Host       string
				Port       uint32
				Origin     string
				OriginPort uint32
			}{host, port, "127.0.0.1", 4711}))
			return err
		}
	}
	open := func(kind string, payload []byte) func(*ssh.Client) error {
		return func(c *ssh.Client) error { _, _, err := c.OpenChannel(kind, payload); return err }
	}
	request := func(name string, payload []byte) func(*ssh.Client) error {
		return func(c *ssh.Client) error {
			ok, _, err := c.SendRequest(name, true, payload)
			if err == nil && !ok {
				err = errors.New(string(requestRefused))
			}
			return err
		}
	}
	for _, test := range []struct {
		name, what string
		attack     func(*ssh.Client) error
		want       policies.Reason
	}{
		{"session", "session", open("session", nil), channelRefused},
		{"x11", "x11", open("x11", ssh.Marshal(struct {
			Origin string
			Port   uint32
		}{"127.0.0.1", 6000})), channelRefused},
		{"agent", "auth-agent@openssh.com", open("auth-agent@openssh.com", nil), channelRefused},
		{"streamlocal", "direct-streamlocal@openssh.com", open("direct-streamlocal@openssh.com", ssh.Marshal(struct {
			Path, Reserved string
			Zero           uint32
		}{Path: "/run/x"})), channelRefused},
		{"tun", "tun@openssh.com", open("tun@openssh.com", nil), channelRefused},
		{"forwarded-tcpip", "forwarded-tcpip", open("forwarded-tcpip", nil), channelRefused},
		{"odd name", `evil\n\x1b`, open("evil\n\x1b", nil), channelRefused},
		{"tcpip-forward", "tcpip-forward", request("tcpip-forward", ssh.Marshal(struct {
			Address string
			Port    uint32
		}{"0.0.0.0", 8080})), requestRefused},
		{"streamlocal-forward", "streamlocal-forward@openssh.com", request("streamlocal-forward@openssh.com", nil), requestRefused},
		{"server not granted", "nl-1:22", direct("nl-1", 22), policies.TargetNotGranted},
		{"port not granted", "se-1:2222", direct("se-1", 2222), policies.PortNotGranted},
		{"unknown target", "se-9:22", direct("se-9", 22), policies.TargetUnknown},
		{"address instead of a name", "10.77.0.11:22", direct("10.77.0.11", 22), policies.TargetUnknown},
		{"metadata address", "169.254.169.254:80", direct("169.254.169.254", 80), policies.TargetUnknown},
		{"localhost", "localhost:22", direct("localhost", 22), policies.TargetUnknown},
		{"the bastion", "bastion:22", direct("bastion", 22), policies.TargetUnknown},
		{"upper case", "SE-1:22", direct("SE-1", 22), policies.TargetUnknown},
		{"nothing listens", "se-2:22", direct("se-2", 22), targetUnreachable},
		{"port 0", "direct-tcpip", direct("se-1", 0), payloadMalformed},
		{"port too large", "direct-tcpip", direct("se-1", 65536+22), payloadMalformed},
		{"no host", "direct-tcpip", direct("", 22), payloadMalformed},
		{"long host", "direct-tcpip", direct(strings.Repeat("a", maxHostName+1), 22), payloadMalformed},
		{"empty payload", "direct-tcpip", open("direct-tcpip", nil), payloadMalformed},
		{"bytes behind the payload", "direct-tcpip", open("direct-tcpip", append(ssh.Marshal(struct {
			Host       string
			Port       uint32
			Origin     string
			OriginPort uint32
		}{"se-1", 22, "", 0}), 0)), payloadMalformed},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t)
			f.target("10.77.0.11:22", echo)
			f.start()
			client := f.login("anna", f.anna.Signer(softkey.Always))
			err := test.attack(client)
			if err == nil || !strings.Contains(err.Error(), string(test.want)) {
				t.Errorf("client: got %v, want %s", err, test.want)
			}
			client.Close()
			r := f.closing()
			if len(r.Refused) != 1 || r.Refused[0].Reason != test.want || r.Refused[0].What != test.what {
				t.Errorf("refused: got %+v, want %s %s", r.Refused, test.what, test.want)
			}
			if r.Outcome != "accepted" || r.Up+r.Down != 0 {
				t.Errorf("record: %+v", r)
			}
		})
	}
}

// TestNoSuchAddress sees that the inventory itself cannot lead a jump to the bastion, its link or the controller.
func TestNoSuchAddress(t *testing.T) {
	f := newFixture(t)
	f.start()
	f.server.ownAddresses = func() ([]netip.Addr, error) { return []netip.Addr{netip.MustParseAddr("10.77.0.99")}, nil }
	r := f.server.ruling.Load()
	for _, bad := range []string{"127.0.0.1", "::1", "169.254.169.254", "fe80::1", "0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255",
		"10.77.0.1", "10.77.0.2", "10.77.0.99"} {
		if err := f.server.reachable(r, netip.MustParseAddr(bad)); err == nil {
			t.Errorf("%s is reachable", bad)
		}
	}
	if err := f.server.reachable(r, netip.MustParseAddr("10.77.0.11")); err != nil {
		t.Error(err)
	}
	f.server.ownAddresses = func() ([]netip.Addr, error) { return nil, errors.New("no netlink") }
	if err := f.server.reachable(r, netip.MustParseAddr("10.77.0.11")); err == nil {
		t.Error("a check that could not be made has passed")
	}
}

func TestTooManyChannels(t *testing.T) {
	f := newFixture(t)
	f.policy.SSH.MaxChannels = 2
	f.writeBundle(2)
	f.target("10.77.0.11:22", echo)
	f.start()
	client := f.login("anna", f.anna.Signer(softkey.Always))
	var conns []net.Conn
	for range 2 {
		conn, err := client.Dial("tcp", "se-1:22")
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	var refused *ssh.OpenChannelError
	if _, err := client.Dial("tcp", "se-1:22"); !errors.As(err, &refused) || refused.Reason != ssh.ResourceShortage {
		t.Errorf("third channel: got %v, want %v", err, ssh.ResourceShortage)
	}
	for _, conn := range conns {
		conn.Close()
	}
	client.Close()
	if r := f.closing(); len(r.Targets) != 2 || len(r.Refused) != 1 || r.Refused[0].Reason != channelsFull {
		t.Errorf("record: %+v", r)
	}
}

func TestRecordIsBounded(t *testing.T) {
	f := newFixture(t)
	f.target("10.77.0.11:22", func(c *net.TCPConn) { io.WriteString(c, "x") })
	f.start()
	client := f.login("anna", f.anna.Signer(softkey.Always))
	for range maxTargets + 3 {
		conn, err := client.Dial("tcp", "se-1:22")
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, conn)
		conn.Close()
		f.next(eventTarget)
	}
	for range maxRefused + 5 {
		client.OpenChannel("session", nil)
	}
	client.Close()
	r := f.closing()
	if len(r.Targets) != maxTargets || r.MoreTargets != 3 || len(r.Refused) != maxRefused || r.MoreRefused != 5 || r.Down != maxTargets+3 {
		t.Errorf("targets %d + %d, refused %d + %d, %d bytes down", len(r.Targets), r.MoreTargets, len(r.Refused), r.MoreRefused, r.Down)
	}
}

// TestHalfClose sees both orders: the client ends its side first and still hears the server, and the other way round.
func TestHalfClose(t *testing.T) {
	f := newFixture(t)
	f.target("10.77.0.11:22", func(c *net.TCPConn) {
		got, err := io.ReadAll(c)
		fmt.Fprintf(c, "got %d, %v", len(got), err)
	})
	heard := make(chan string, 1)
	f.target("10.77.0.12:22", func(c *net.TCPConn) {
		io.WriteString(c, "bye")
		c.CloseWrite()
		got, _ := io.ReadAll(c)
		heard <- string(got)
	})
	f.start()
	client := f.login("anna", f.anna.Signer(softkey.Always))

	first, err := client.Dial("tcp", "se-1:22")
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(first, "hello")
	first.(interface{ CloseWrite() error }).CloseWrite()
	if got, err := io.ReadAll(first); string(got) != "got 5, <nil>" {
		t.Errorf("after our half: got %q, %v", got, err)
	}
	second, err := client.Dial("tcp", "se-2:22")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(second); string(got) != "bye" {
		t.Errorf("server's half: got %q, %v", got, err)
	}
	io.WriteString(second, "still here")
	second.Close()
	if got := <-heard; got != "still here" {
		t.Errorf("after the server's half: got %q", got)
	}
}

// TestClosedChannelFreesTheTarget sees that a silent target does not keep a channel's place when the client has closed it.
func TestClosedChannelFreesTheTarget(t *testing.T) {
	f := newFixture(t)
	f.policy.SSH.MaxChannels = 1
	f.writeBundle(2)
	left := make(chan struct{}, 4)
	f.target("10.77.0.11:22", func(c *net.TCPConn) {
		io.Copy(io.Discard, c) // hears the end of input, says nothing …
		var b [1]byte
		c.SetReadDeadline(time.Now().Add(patience))
		for {
			if _, err := c.Write(b[:]); err != nil { // … until the bastion is really gone
				left <- struct{}{}
				return
			}
		}
	})
	f.start()
	client := f.login("anna", f.anna.Signer(softkey.Always))
	for range 2 {
		conn, err := client.Dial("tcp", "se-1:22")
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		select {
		case <-left:
		case <-time.After(patience):
			t.Fatal("the target is still connected")
		}
		f.next(eventTarget)
		f.freed()
	}
}

// hangUp closes a client that has read all that the bastion sends. With something unread the kernel would reset the connection,
// and the bastion would find it lost.
func (f *fixture) hangUp(client *ssh.Client) {
	f.t.Helper()
	f.freed()
	if _, _, err := client.SendRequest("keepalive@openssh.com", true, nil); err != nil {
		f.t.Error(err)
	}
	client.Close()
}

// freed waits until no target is open.
func (f *fixture) freed() {
	f.t.Helper()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-poll.C {
		open := 0
		for v := range f.server.sessions.list() {
			open += len(v.openTargets())
		}
		if open == 0 {
			return
		}
	}
	f.t.Fatal("a target is still open")
}

func TestIdleAndSessionLimit(t *testing.T) {
	const limit = policies.Duration(3 * time.Second) // a loaded machine logs in, writes two records and opens the target within
	for _, test := range []struct {
		name string
		set  func(*policies.SSH)
		want string
	}{
		{"idle", func(s *policies.SSH) { s.IdleTimeout = limit }, endIdle},
		{"session", func(s *policies.SSH) { s.SessionLimit = limit }, endLimit},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t)
			test.set(&f.policy.SSH)
			f.writeBundle(2)
			f.target("10.77.0.11:22", echo)
			f.start()
			client := f.login("anna", f.anna.Signer(softkey.Always))
			conn, err := client.Dial("tcp", "se-1:22")
			if err != nil {
				t.Fatal(err)
			}
			if test.want == endLimit { // traffic does not help
				go func() {
					for {
						if _, err := conn.Write([]byte("x")); err != nil {
							return
						}
						if _, err := conn.Read(make([]byte, 1)); err != nil {
							return
						}
					}
				}()
			}
			client.Wait()
			r := f.closing()
			if r.Ended != test.want || len(r.Targets) != 1 || r.Targets[0].Ended != test.want {
				t.Errorf("got %s, targets %+v, want %s", r.Ended, r.Targets, test.want)
			}
		})
	}
}

// TestAuditUnavailable sees that nobody new gets in, and no new target is opened, while the log cannot be written.
func TestAuditUnavailable(t *testing.T) {
	f := newFixture(t)
	reached := make(chan struct{}, 1)
	f.target("10.77.0.11:22", func(*net.TCPConn) { reached <- struct{}{} })
	f.start()
	in := f.login("anna", f.anna.Signer(softkey.Always))
	f.spy.failWith(errors.New("disk full"))
	if _, err := in.Dial("tcp", "se-1:22"); err == nil || !strings.Contains(err.Error(), string(auditUnavailable)) {
		t.Errorf("target: got %v, want %s", err, auditUnavailable)
	}
	if client, err := f.client("bert", f.bert.Signer(softkey.Always)); err == nil {
		client.Close()
		t.Error("logged in without a record")
	}
	if n := len(f.server.sessions.list()); n != 1 {
		t.Errorf("sessions: got %d, want 1", n)
	}
	f.spy.failWith(nil)
	f.login("bert", f.bert.Signer(softkey.Always)).Close()
	select {
	case <-reached:
		t.Error("the target was reached without a record")
	default:
	}
}

// TestRecordBeforeBytes sees the target's record on disk before its first byte.
func TestRecordBeforeBytes(t *testing.T) {
	f := newFixture(t)
	f.target("10.77.0.11:22", func(c *net.TCPConn) {
		select {
		case e := <-f.spy.entries:
			for e.Event != eventTarget {
				e = <-f.spy.entries
			}
			io.WriteString(c, "recorded")
		default:
			io.WriteString(c, "no record")
		}
	})
	f.start()
	client := f.login("anna", f.anna.Signer(softkey.Always))
	conn, err := client.Dial("tcp", "se-1:22")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(conn); string(got) != "recorded" {
		t.Errorf("got %q, %v", got, err)
	}
}

func FuzzDirectTCPIP(f *testing.F) {
	f.Add(ssh.Marshal(struct {
		Host       string
		Port       uint32
		Origin     string
		OriginPort uint32
	}{"se-1", 22, "127.0.0.1", 4711}))
	f.Add([]byte{})
	f.Add([]byte{0, 0, 0, 4, 's', 'e', '-', '1', 0, 0, 0, 22, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, payload []byte) {
		m, err := parseDirectTCPIP(payload)
		if err != nil {
			if m != (directTCPIP{}) {
				t.Errorf("an error and a target: %+v", m)
			}
			return
		}
		if m.host == "" || len(m.host) > maxHostName || m.port == 0 {
			t.Errorf("out of bounds: %+v", m)
		}
	})
}

// TestTargetLeavesTheReserve: a target's opening record may not use the space that is kept for closing records.
func TestTargetLeavesTheReserve(t *testing.T) {
	f := newFixture(t)
	reached := make(chan struct{}, 1)
	f.target("10.77.0.11:22", func(*net.TCPConn) { reached <- struct{}{} })
	f.start()
	anna := f.login("anna", f.anna.Signer(softkey.Always))
	f.spy.failOpening(errors.New("disk full but for the reserve"))
	refusedWith(t, anna, "se-1:22", auditUnavailable)
	select {
	case <-reached:
		t.Error("the server was reached")
	default:
	}
	f.spy.failOpening(nil)
	anna.Close()
	if r := f.closing(); r.Outcome != "accepted" {
		t.Errorf("closing: %+v", r)
	}
}

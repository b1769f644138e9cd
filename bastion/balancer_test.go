package bastion

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"errors"
	"os"
	"time"

	"mayfly/policies"
	"mayfly/testenv/softkey"
)

// proxyHeader is what a balancer sends for a client over IPv4.
func proxyHeader(source netip.AddrPort) []byte {
	header := append([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c"), source.Addr().AsSlice()...)
	header = binary.BigEndian.AppendUint16(append(header, 198, 51, 100, 1), source.Port())
	return append(header, 0, 22)
}

// through connects from a balancer's address and sends first what a balancer would.
func (f *fixture) through(balancer string, header []byte) net.Conn {
	f.t.Helper()
	conn, err := dialFrom(f.t.Context(), balancer, f.address)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { conn.Close() })
	if _, err := conn.Write(header); err != nil {
		f.t.Fatal(err)
	}
	return conn
}

func (f *fixture) loginOver(conn net.Conn, user string, key *softkey.Key) error {
	client, _, _, err := ssh.NewClientConn(conn, f.address, &ssh.ClientConfig{User: user, HostKeyCallback: f.checkHost(),
		Auth: []ssh.AuthMethod{ssh.PublicKeys(key.Signer(softkey.Always))}})
	if err == nil {
		f.t.Cleanup(func() { client.Close() })
	}
	return err
}

// behindBalancer is a fixture whose balancer is 127.0.0.9, in front of 192.0.2.0/24, with anna at 192.0.2.7 only.
func behindBalancer(t *testing.T) *fixture {
	f := newFixture(t)
	f.policy.SSH.Allow = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32"), netip.MustParsePrefix("192.0.2.0/24")}
	f.policy.SSH.Proxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.9/32")}
	f.policy.Engineers[0].Allow = []netip.Prefix{netip.MustParsePrefix("192.0.2.7/32")}
	f.writeBundle(2)
	return f
}

func TestBalancer(t *testing.T) {
	f := behindBalancer(t)
	f.start()
	header := func(source string) []byte {
		return proxyHeader(netip.MustParseAddrPort(source))
	}
	if err := f.loginOver(f.through("127.0.0.9", header("192.0.2.7:1234")), "anna", f.anna); err != nil {
		t.Fatal(err)
	}
	if got := string(f.next(eventLogin).Record); !strings.Contains(got, `"source":"192.0.2.7:1234"`) || !strings.Contains(got, `"balancer":"127.0.0.9"`) {
		t.Errorf("login: %s", got)
	}
	// An engineer's own list goes by the header.
	if err := f.loginOver(f.through("127.0.0.9", header("192.0.2.8:1")), "anna", f.anna); err == nil {
		t.Error("logged in from an address off anna's list")
	}
	if r := f.closing(); r.Reason != policies.AddressNotListed || r.Source != "192.0.2.8:1" || r.Balancer != "127.0.0.9" {
		t.Errorf("record: %+v", r)
	}
	// So do penalties.
	f.fail("192.0.2.66")
	for _, test := range []struct {
		name   string
		header []byte
		from   string
		want   policies.Reason
	}{
		{"penalised", header("192.0.2.66:1"), "192.0.2.66/32", sourcePenalised},
		{"unlisted", header("203.0.113.1:1"), "203.0.113.1/32", policies.AddressNotListed},
		{"no header", []byte("SSH-2.0-x\r\n"), "127.0.0.9/32", proxyHeaderMissing},
		{"version 1", []byte("PROXY TCP4 192.0.2.7 198.51.100.1 1234 22\r\n"), "127.0.0.9/32", proxyHeaderMalformed},
	} {
		conn := f.through("127.0.0.9", test.header)
		if n, err := io.Copy(io.Discard, conn); n > 0 {
			t.Errorf("%s: greeted with %d bytes, %v", test.name, n, err)
		}
		if got := string(f.next(eventRefused).Record); !strings.Contains(got, `"`+string(test.want)+`"`) || !strings.Contains(got, test.from) {
			t.Errorf("%s: %s, want %s of %s", test.name, got, test.want, test.from)
		}
	}
	// Others' bytes are SSH, and no header.
	conn := f.through("127.0.0.1", header("192.0.2.7:1234"))
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, conn); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Error(err)
	}
	if r := f.closing(); r.Reason != protocolError && r.Reason != leftEarly || !strings.HasPrefix(r.Source, "127.0.0.1:") || r.Balancer != "" {
		t.Errorf("a header from no balancer: %+v", r)
	}
}

// TestBalancerCaps sees the address of the header counted and not the balancer's, and a balancer taken off the list cut.
func TestBalancerCaps(t *testing.T) {
	f := behindBalancer(t)
	f.policy.SSH.MaxPerSource = 1
	f.writeBundle(2)
	f.start()
	var held []net.Conn
	for i := range 3 {
		source := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(7 + i)}), 1)
		conn := f.through("127.0.0.9", proxyHeader(source))
		if _, err := conn.Read(make([]byte, 8)); err != nil {
			t.Fatalf("source %d: %v", i, err)
		}
		held = append(held, conn)
	}
	again := f.through("127.0.0.9", proxyHeader(netip.MustParseAddrPort("192.0.2.7:1234"))) // 192.0.2.7 has its one place
	if n, _ := io.Copy(io.Discard, again); n > 0 {
		t.Error("greeted beyond its source's cap")
	}
	if got := string(f.next(eventRefused).Record); !strings.Contains(got, string(sourceStartupsFull)) || !strings.Contains(got, "192.0.2.7/32") {
		t.Errorf("refusal record: %s", got)
	}
	for _, conn := range held {
		conn.Close()
		f.closing()
	}
	if err := f.loginOver(f.through("127.0.0.9", proxyHeader(netip.MustParseAddrPort("192.0.2.7:1234"))), "anna", f.anna); err != nil {
		t.Fatal(err)
	}
	f.policy.Version, f.policy.SSH.Proxies = 2, nil
	f.writeBundle(2)
	if r := f.closing(); r.Ended != endPolicy || r.Reason != policies.AddressNotListed {
		t.Errorf("record: %+v, want it cut with its balancer", r)
	}
}

// TestBalancerThatSaysNothing is cut off when its header is due.
func TestBalancerThatSaysNothing(t *testing.T) {
	f := behindBalancer(t)
	f.start()
	conn := f.through("127.0.0.9", proxyHeader(netip.MustParseAddrPort("192.0.2.7:1234"))[:12]) // its signature, and no more
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, conn); n > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d bytes, %v", n, err)
	}
	if got := string(f.next(eventRefused).Record); !strings.Contains(got, string(proxyHeaderMalformed)) {
		t.Errorf("record: %s", got)
	}
}

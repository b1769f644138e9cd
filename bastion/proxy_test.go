package bastion

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"

	"golang.org/x/crypto/ssh"

	"mayfly/policies"
	"mayfly/testenv/softkey"
)

// proxyHeader is what a balancer sends.
func proxyHeader(command, family byte, source, to netip.AddrPort, values ...byte) []byte {
	body := append(source.Addr().AsSlice(), to.Addr().AsSlice()...)
	body = binary.BigEndian.AppendUint16(body, source.Port())
	body = append(binary.BigEndian.AppendUint16(body, to.Port()), values...)
	header := append([]byte(proxySignature), command, family)
	return append(binary.BigEndian.AppendUint16(header, uint16(len(body))), body...)
}

var (
	proxySource = netip.MustParseAddrPort("192.0.2.7:1234")
	proxyTo     = netip.MustParseAddrPort("198.51.100.1:22")
	proxySix    = netip.MustParseAddrPort("[2001:db8::7]:1234")
	proxySixTo  = netip.MustParseAddrPort("[2001:db8::1]:22")
	proxyGood   = proxyHeader(proxyCommand, proxyTCP4, proxySource, proxyTo)
)

func sealed(header []byte) []byte {
	at := len(header) - 4
	binary.BigEndian.PutUint32(header[at:], crc32.Checksum(header, crc32.MakeTable(crc32.Castagnoli)))
	return header
}

func edit(header []byte, f func([]byte)) []byte {
	header = bytes.Clone(header)
	f(header)
	return header
}

var proxyCases = []struct {
	name   string
	header []byte
	source netip.AddrPort
	err    error
}{
	{"TCP over IPv4", proxyGood, proxySource, nil},
	{"TCP over IPv6", proxyHeader(proxyCommand, proxyTCP6, proxySix, proxySixTo), proxySix, nil},
	{"mapped", proxyHeader(proxyCommand, proxyTCP6, netip.MustParseAddrPort("[::ffff:192.0.2.7]:1234"), proxySixTo), proxySource, nil},
	{"values", proxyHeader(proxyCommand, proxyTCP4, proxySource, proxyTo, 4, 0, 1, 0, 2, 0, 0), proxySource, nil},
	{"checksum", sealed(proxyHeader(proxyCommand, proxyTCP4, proxySource, proxyTo, 3, 0, 4, 0, 0, 0, 0)), proxySource, nil},

	{"nothing", nil, netip.AddrPort{}, errHeaderMissing},
	{"SSH", []byte("SSH-2.0-OpenSSH_10.0\r\n"), netip.AddrPort{}, errHeaderMissing},
	{"newlines alone", []byte("\r\n\r\nSSH-2.0-x\r\n"), netip.AddrPort{}, errHeaderMissing},
	{"version 1", []byte("PROXY TCP4 192.0.2.7 198.51.100.1 1234 22\r\n"), netip.AddrPort{}, errHeaderMalformed},
	{"LOCAL", proxyHeader(proxyLocal, 0, proxySource, proxyTo), netip.AddrPort{}, errHeaderMalformed},
	{"another command", proxyHeader(0x22, proxyTCP4, proxySource, proxyTo), netip.AddrPort{}, errHeaderMalformed},
	{"another version", proxyHeader(0x31, proxyTCP4, proxySource, proxyTo), netip.AddrPort{}, errHeaderMalformed},
	{"unix", proxyHeader(proxyCommand, proxyUnix, proxySource, proxyTo), netip.AddrPort{}, errHeaderMalformed},
	{"UDP", proxyHeader(proxyCommand, 0x12, proxySource, proxyTo), netip.AddrPort{}, errHeaderMalformed},
	{"unspecified family", proxyHeader(proxyCommand, 0, proxySource, proxyTo), netip.AddrPort{}, errHeaderMalformed},
	{"IPv4 said to be IPv6", proxyHeader(proxyCommand, proxyTCP6, proxySource, proxyTo), netip.AddrPort{}, errHeaderMalformed},
	{"no port", proxyHeader(proxyCommand, proxyTCP4, netip.MustParseAddrPort("192.0.2.7:0"), proxyTo), netip.AddrPort{}, errHeaderMalformed},
	{"no address", proxyHeader(proxyCommand, proxyTCP4, netip.MustParseAddrPort("0.0.0.0:1"), proxyTo), netip.AddrPort{}, errHeaderMalformed},
	{"multicast", proxyHeader(proxyCommand, proxyTCP4, netip.MustParseAddrPort("224.0.0.1:1"), proxyTo), netip.AddrPort{}, errHeaderMalformed},
	{"cut off", proxyGood[:20], netip.AddrPort{}, errHeaderMalformed},
	{"cut in its prefix", proxyGood[:14], netip.AddrPort{}, errHeaderMalformed},
	{"64 KiB", edit(proxyGood, func(b []byte) { b[14], b[15] = 0xff, 0xff }), netip.AddrPort{}, errHeaderMalformed},
	{"half a value", proxyHeader(proxyCommand, proxyTCP4, proxySource, proxyTo, 4, 0), netip.AddrPort{}, errHeaderMalformed},
	{"a value beyond the end", proxyHeader(proxyCommand, proxyTCP4, proxySource, proxyTo, 4, 0, 9, 0), netip.AddrPort{}, errHeaderMalformed},
	{"a wrong checksum", proxyHeader(proxyCommand, proxyTCP4, proxySource, proxyTo, 3, 0, 4, 1, 2, 3, 4), netip.AddrPort{}, errHeaderMalformed},
	{"a short checksum", proxyHeader(proxyCommand, proxyTCP4, proxySource, proxyTo, 3, 0, 1, 1), netip.AddrPort{}, errHeaderMalformed},
}

// TestProxyHeader reads each header whole and byte by byte, and never a byte of what follows it.
func TestProxyHeader(t *testing.T) {
	for _, test := range proxyCases {
		for _, how := range []func(io.Reader) io.Reader{func(r io.Reader) io.Reader { return r }, iotest.OneByteReader, iotest.HalfReader} {
			rest := "SSH-2.0-follows\r\n"
			if test.err != nil {
				rest = ""
			}
			in := bytes.NewReader(append(bytes.Clone(test.header), rest...))
			got, err := readProxyHeader(how(in))
			if got != test.source || !errors.Is(err, test.err) || (err == nil) != (test.err == nil) {
				t.Errorf("%s: got %v, %v; want %v, %v", test.name, got, err, test.source, test.err)
			}
			if in.Len() != len(rest) && test.err == nil {
				t.Errorf("%s: %d bytes left, want %d", test.name, in.Len(), len(rest))
			}
		}
	}
}

func FuzzProxyHeader(f *testing.F) {
	for _, test := range proxyCases {
		f.Add(test.header)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		in := bytes.NewReader(data)
		source, err := readProxyHeader(in)
		if read := len(data) - in.Len(); read > maxProxyHeader {
			t.Fatalf("read %d bytes", read)
		}
		if err != nil {
			if !errors.Is(err, errHeaderMissing) && !errors.Is(err, errHeaderMalformed) || source.IsValid() {
				t.Fatalf("%v, %v", source, err)
			}
			return
		}
		header := data[:len(data)-in.Len()]
		again, err := parseProxyHeader(header)
		if err != nil || again != source || source.Addr().Is4In6() || !source.Addr().IsValid() {
			t.Fatalf("%v, then %v, %v", source, again, err)
		}
	})
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
		return proxyHeader(proxyCommand, proxyTCP4, netip.MustParseAddrPort(source), proxyTo)
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
		conn := f.through("127.0.0.9", proxyHeader(proxyCommand, proxyTCP4, source, proxyTo))
		if _, err := conn.Read(make([]byte, 8)); err != nil {
			t.Fatalf("source %d: %v", i, err)
		}
		held = append(held, conn)
	}
	again := f.through("127.0.0.9", proxyGood) // 192.0.2.7 has its one place
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
	if err := f.loginOver(f.through("127.0.0.9", proxyGood), "anna", f.anna); err != nil {
		t.Fatal(err)
	}
	f.policy.Version, f.policy.SSH.Proxies = 2, nil
	f.writeBundle(2)
	if r := f.closing(); r.Ended != endPolicy || r.Reason != policies.AddressNotListed {
		t.Errorf("record: %+v, want it cut with its balancer", r)
	}
}

package bastion

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Flags of a TCP segment (RFC 9293).
const (
	tcpFIN, tcpSYN, tcpRST, tcpPSH, tcpACK, tcpURG = 1, 2, 4, 8, 16, 32
)

// segment is a TCP header without options and with its checksum.
func segment(from, to netip.AddrPort, flags byte) []byte {
	s := make([]byte, 20)
	binary.BigEndian.PutUint16(s, from.Port())
	binary.BigEndian.PutUint16(s[2:], to.Port())
	binary.BigEndian.PutUint32(s[4:], 12345)
	s[12], s[13] = 5<<4, flags
	binary.BigEndian.PutUint16(s[14:], 1024)
	sum := uint32(unix.IPPROTO_TCP) + uint32(len(s))
	source, target := from.Addr().As4(), to.Addr().As4()
	for _, part := range [][]byte{source[:], target[:], s} {
		for i := 0; i < len(part); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(part[i:]))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(s[16:], ^uint16(sum))
	return s
}

// answered sends one segment, as a scanner does, and returns the flags of what comes back; -1: nothing.
func answered(t *testing.T, from, to netip.AddrPort, flags byte, wait time.Duration) int {
	t.Helper()
	conn, err := net.ListenIP("ip4:tcp", &net.IPAddr{IP: from.Addr().AsSlice()})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.WriteTo(segment(from, to, flags), &net.IPAddr{IP: to.Addr().AsSlice()}); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 256)
	for {
		n, _, err := conn.ReadFrom(buffer)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return -1
		}
		if err != nil {
			t.Fatal(err)
		}
		if n >= 20 && binary.BigEndian.Uint16(buffer) == to.Port() && binary.BigEndian.Uint16(buffer[2:]) == from.Port() {
			return int(buffer[13])
		}
	}
}

// TestScan looks for the bastion as a port scanner does, with single segments of every usual kind: an address off the list sees neither
// SYN-ACK nor RST, as if there were no machine. A listed one and a closed port show that the scanner sees what there is.
func TestScan(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: raw sockets")
	}
	f := newFixture(t)
	f.start()
	here := netip.MustParseAddrPort(f.address)
	listed, stranger := netip.MustParseAddr("127.0.0.3"), netip.MustParseAddr("127.0.0.66")
	if got := answered(t, netip.AddrPortFrom(listed, 40001), here, tcpSYN, patience); got != tcpSYN|tcpACK {
		t.Fatalf("a listed address's SYN: flags %#x, want SYN-ACK", got)
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := netip.MustParseAddrPort(closed.Addr().String())
	closed.Close()
	if got := answered(t, netip.AddrPortFrom(stranger, 40002), elsewhere, tcpSYN, patience); got&tcpRST == 0 {
		t.Fatalf("a closed port: flags %#x, want RST", got)
	}
	for name, flags := range map[string]byte{"SYN": tcpSYN, "ACK": tcpACK, "FIN": tcpFIN, "null": 0, "Xmas": tcpFIN | tcpPSH | tcpURG, "Maimon": tcpFIN | tcpACK} {
		if got := answered(t, netip.AddrPortFrom(stranger, 40003), here, flags, 300*time.Millisecond); got >= 0 {
			t.Errorf("%s scan: answered with flags %#x", name, got)
		}
	}
}

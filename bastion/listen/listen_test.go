package listen

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/net/bpf"
)

// patience bounds how long a test waits for something that must happen.
const patience = 20 * time.Second

// dialFrom connects from a loopback address of choice.
func dialFrom(ctx context.Context, source, to string) (net.Conn, error) {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
	return dialer.DialContext(ctx, "tcp", to)
}

// TestFilterOnIPv6 sees the filter on a dual-stack socket: IPv6 and IPv4 sources each by their own prefixes.
func TestFilterOnIPv6(t *testing.T) {
	for _, test := range []struct {
		allow      string
		four, sixs bool
	}{{"::1/128", false, true}, {"::/127", false, true}, {"::2/127", false, false}, {"127.0.0.1/32", true, false}, {"2001:db8::/32", false, false}} {
		filter, err := Filter([]netip.Prefix{netip.MustParsePrefix(test.allow)})
		if err != nil {
			t.Fatal(err)
		}
		l, err := On(t.Context(), netip.MustParseAddrPort("[::]:0"), filter)
		if err != nil {
			t.Skipf("no IPv6 here: %v", err)
		}
		_, port, _ := net.SplitHostPort(l.Addr().String())
		for _, try := range []struct {
			source, to string
			want       bool
		}{{"127.0.0.1", "127.0.0.1:" + port, test.four}, {"::1", "[::1]:" + port, test.sixs}} {
			wait := patience // a loaded machine may be slow to answer
			if !try.want {
				wait = 300 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), wait)
			conn, err := dialFrom(ctx, try.source, try.to)
			if err == nil {
				conn.Close()
			}
			if got := err == nil; got != try.want {
				t.Errorf("list %s, source %s: connected %v, want %v (%v)", test.allow, try.source, got, try.want, err)
			}
			cancel()
		}
		l.Close()
	}
}

// run interprets a filter as the kernel does, for the few instructions that Filter uses.
func run(t *testing.T, program []bpf.RawInstruction, source netip.Addr) bool {
	t.Helper()
	header, etherType := make([]byte, 40), uint32(etherTypeV6)
	if source.Is4() {
		etherType = etherTypeV4
		a := source.As4()
		copy(header[12:], a[:])
	} else {
		a := source.As16()
		copy(header[8:], a[:])
	}
	var a uint32
	for pc := 0; pc < len(program); pc++ {
		switch in := program[pc].Disassemble().(type) {
		case bpf.LoadExtension:
			a = etherType
		case bpf.LoadAbsolute:
			a = binary.BigEndian.Uint32(header[in.Off-netOffset:])
		case bpf.ALUOpConstant:
			a &= in.Val
		case bpf.Jump:
			pc += int(in.Skip)
		case bpf.JumpIf:
			if (a == in.Val) == (in.Cond == bpf.JumpEqual) {
				pc += int(in.SkipTrue)
			} else {
				pc += int(in.SkipFalse)
			}
		case bpf.RetConstant:
			return in.Val != drop
		default:
			t.Fatalf("instruction %d: %#v", pc, in)
		}
	}
	t.Fatal("ran off the end")
	return false
}

// TestFilterIsTheList compares filters with netip on random lists and addresses near their edges.
func TestFilterIsTheList(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	address := func() netip.Addr {
		if random.IntN(2) == 0 {
			return netip.AddrFrom4([4]byte{byte(random.IntN(3)), byte(random.IntN(256)), byte(random.IntN(4)), byte(random.IntN(256))})
		}
		a := [16]byte{0: 0x20, 1: 1, 5: byte(random.IntN(3)), 9: byte(random.IntN(3)), 15: byte(random.IntN(256))}
		return netip.AddrFrom16(a)
	}
	for range 300 {
		var list []netip.Prefix
		var probes []netip.Addr
		for range random.IntN(40) {
			a := address()
			p := netip.PrefixFrom(a, random.IntN(a.BitLen()+1)).Masked()
			list = append(list, p)
			probes = append(probes, p.Addr(), p.Addr().Prev(), a, a.Next())
		}
		for range 40 {
			probes = append(probes, address())
		}
		program, err := Filter(list)
		if err != nil {
			t.Fatal(err)
		}
		for _, probe := range probes {
			if !probe.IsValid() {
				continue
			}
			want := false
			for _, p := range list {
				want = want || p.Contains(probe)
			}
			if got := run(t, program, probe); got != want {
				t.Fatalf("list %v, source %v: got %v, want %v", list, probe, got, want)
			}
		}
	}
}

func TestFilterIsBounded(t *testing.T) {
	var four, six []netip.Prefix
	for i := range 5000 {
		four = append(four, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 7), byte(i << 1), 1}), 32))
		six = append(six, netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 15: 1, 6: byte(i >> 8), 7: byte(i)}), 128))
	}
	for _, list := range [][]netip.Prefix{four, six} {
		if _, err := Filter(list); err == nil {
			t.Error("a filter that the kernel cannot take was compiled")
		}
	}
	for _, list := range [][]netip.Prefix{four[:1000], six[:100]} { // a policy takes 1000
		program, err := Filter(list)
		if err != nil {
			t.Fatal(err)
		}
		if !run(t, program, list[99].Addr()) || run(t, program, netip.MustParseAddr("127.0.0.1")) {
			t.Error("a large filter is not its list")
		}
		l, err := On(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"), program)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		for range 3 {
			if err := l.Swap(program); err != nil {
				t.Errorf("swapping %d instructions: %v", len(program), err)
			}
		}
	}
	empty, err := Filter(nil)
	if err != nil || run(t, empty, netip.MustParseAddr("127.0.0.1")) {
		t.Errorf("an empty list lets in: %v", err)
	}
}

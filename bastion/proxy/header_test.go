package proxy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"net/netip"
	"testing"
	"testing/iotest"
)

// header is what a balancer sends.
func header(command, family byte, source, to netip.AddrPort, values ...byte) []byte {
	body := append(source.Addr().AsSlice(), to.Addr().AsSlice()...)
	body = binary.BigEndian.AppendUint16(body, source.Port())
	body = append(binary.BigEndian.AppendUint16(body, to.Port()), values...)
	header := append([]byte(signature), command, family)
	return append(binary.BigEndian.AppendUint16(header, uint16(len(body))), body...)
}

var (
	source4 = netip.MustParseAddrPort("192.0.2.7:1234")
	to4     = netip.MustParseAddrPort("198.51.100.1:22")
	source6 = netip.MustParseAddrPort("[2001:db8::7]:1234")
	to6     = netip.MustParseAddrPort("[2001:db8::1]:22")
	good    = header(commandProxy, familyTCP4, source4, to4)
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

var cases = []struct {
	name   string
	header []byte
	source netip.AddrPort
	err    error
}{
	{"TCP over IPv4", good, source4, nil},
	{"TCP over IPv6", header(commandProxy, familyTCP6, source6, to6), source6, nil},
	{"mapped", header(commandProxy, familyTCP6, netip.MustParseAddrPort("[::ffff:192.0.2.7]:1234"), to6), source4, nil},
	{"values", header(commandProxy, familyTCP4, source4, to4, 4, 0, 1, 0, 2, 0, 0), source4, nil},
	{"checksum", sealed(header(commandProxy, familyTCP4, source4, to4, 3, 0, 4, 0, 0, 0, 0)), source4, nil},

	{"nothing", nil, netip.AddrPort{}, ErrMissing},
	{"SSH", []byte("SSH-2.0-OpenSSH_10.0\r\n"), netip.AddrPort{}, ErrMissing},
	{"newlines alone", []byte("\r\n\r\nSSH-2.0-x\r\n"), netip.AddrPort{}, ErrMissing},
	{"version 1", []byte("PROXY TCP4 192.0.2.7 198.51.100.1 1234 22\r\n"), netip.AddrPort{}, ErrMalformed},
	{"LOCAL", header(commandLocal, 0, source4, to4), netip.AddrPort{}, ErrMalformed},
	{"another command", header(0x22, familyTCP4, source4, to4), netip.AddrPort{}, ErrMalformed},
	{"another version", header(0x31, familyTCP4, source4, to4), netip.AddrPort{}, ErrMalformed},
	{"unix", header(commandProxy, familyUnix, source4, to4), netip.AddrPort{}, ErrMalformed},
	{"UDP", header(commandProxy, 0x12, source4, to4), netip.AddrPort{}, ErrMalformed},
	{"unspecified family", header(commandProxy, 0, source4, to4), netip.AddrPort{}, ErrMalformed},
	{"IPv4 said to be IPv6", header(commandProxy, familyTCP6, source4, to4), netip.AddrPort{}, ErrMalformed},
	{"no port", header(commandProxy, familyTCP4, netip.MustParseAddrPort("192.0.2.7:0"), to4), netip.AddrPort{}, ErrMalformed},
	{"no address", header(commandProxy, familyTCP4, netip.MustParseAddrPort("0.0.0.0:1"), to4), netip.AddrPort{}, ErrMalformed},
	{"multicast", header(commandProxy, familyTCP4, netip.MustParseAddrPort("224.0.0.1:1"), to4), netip.AddrPort{}, ErrMalformed},
	{"cut off", good[:20], netip.AddrPort{}, ErrMalformed},
	{"cut in its prefix", good[:14], netip.AddrPort{}, ErrMalformed},
	{"64 KiB", edit(good, func(b []byte) { b[14], b[15] = 0xff, 0xff }), netip.AddrPort{}, ErrMalformed},
	{"half a value", header(commandProxy, familyTCP4, source4, to4, 4, 0), netip.AddrPort{}, ErrMalformed},
	{"a value beyond the end", header(commandProxy, familyTCP4, source4, to4, 4, 0, 9, 0), netip.AddrPort{}, ErrMalformed},
	{"a wrong checksum", header(commandProxy, familyTCP4, source4, to4, 3, 0, 4, 1, 2, 3, 4), netip.AddrPort{}, ErrMalformed},
	{"a short checksum", header(commandProxy, familyTCP4, source4, to4, 3, 0, 1, 1), netip.AddrPort{}, ErrMalformed},
}

// TestHeader reads each header whole and byte by byte, and never a byte of what follows it.
func TestHeader(t *testing.T) {
	for _, test := range cases {
		for _, how := range []func(io.Reader) io.Reader{func(r io.Reader) io.Reader { return r }, iotest.OneByteReader, iotest.HalfReader} {
			rest := "SSH-2.0-follows\r\n"
			if test.err != nil {
				rest = ""
			}
			in := bytes.NewReader(append(bytes.Clone(test.header), rest...))
			got, err := Read(how(in))
			if got != test.source || !errors.Is(err, test.err) || (err == nil) != (test.err == nil) {
				t.Errorf("%s: got %v, %v; want %v, %v", test.name, got, err, test.source, test.err)
			}
			if in.Len() != len(rest) && test.err == nil {
				t.Errorf("%s: %d bytes left, want %d", test.name, in.Len(), len(rest))
			}
		}
	}
}

func FuzzHeader(f *testing.F) {
	for _, test := range cases {
		f.Add(test.header)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		in := bytes.NewReader(data)
		source, err := Read(in)
		if read := len(data) - in.Len(); read > maxHeader {
			t.Fatalf("read %d bytes", read)
		}
		if err != nil {
			if !errors.Is(err, ErrMissing) && !errors.Is(err, ErrMalformed) || source.IsValid() {
				t.Fatalf("%v, %v", source, err)
			}
			return
		}
		header := data[:len(data)-in.Len()]
		again, err := parse(header)
		if err != nil || again != source || source.Addr().Is4In6() || !source.Addr().IsValid() {
			t.Fatalf("%v, then %v, %v", source, again, err)
		}
	})
}

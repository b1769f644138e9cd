// Package proxy reads the header of the PROXY protocol, version 2, by which a balancer says for whom it connects. Whom to believe is the bastion's to
// decide.
package proxy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/netip"
)

// Specification constants of the PROXY protocol, version 2 (HAProxy, proxy-protocol.txt, section 2.2).
const (
	signature    = "\r\n\r\n\x00\r\nQUIT\n"
	prefixSize   = 16 // signature, version and command, family and protocol, length
	commandProxy = 0x21
	commandLocal = 0x20
	familyTCP4   = 0x11
	familyTCP6   = 0x21
	familyUnix   = 0x31
	valueCRC32C  = 0x03 // type of the value that holds a checksum of the header
)

// maxHeader is in bytes, with what a balancer adds about TLS.
const maxHeader = 2048

// Why there is no address.
var (
	ErrMissing   = errors.New("no PROXY protocol header")
	ErrMalformed = errors.New("malformed PROXY protocol header")
)

// parse reads a whole header and returns the address that it says the connection is from. Only what a balancer in front
// of SSH has to send is accepted: version 2, TCP over IPv4 or IPv6, a length that is that of its content.
func parse(header []byte) (netip.AddrPort, error) {
	bad := func(format string, args ...any) (netip.AddrPort, error) {
		return netip.AddrPort{}, fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
	}
	if len(header) < prefixSize || string(header[:len(signature)]) != signature {
		return netip.AddrPort{}, ErrMissing
	}
	if int(binary.BigEndian.Uint16(header[14:])) != len(header)-prefixSize || len(header) > maxHeader {
		return bad("length")
	}
	switch command := header[12]; command {
	case commandProxy:
	case commandLocal:
		return bad("LOCAL: the balancer's own connection")
	default:
		return bad("version and command 0x%02x", command)
	}
	body := header[prefixSize:]
	size := 4
	switch family := header[13]; family {
	case familyTCP4:
	case familyTCP6:
		size = 16
	case familyUnix:
		return bad("a unix socket")
	default:
		return bad("family and protocol 0x%02x", family)
	}
	if len(body) < 2*size+4 {
		return bad("no room for its addresses")
	}
	address, _ := netip.AddrFromSlice(body[:size])
	source := netip.AddrPortFrom(address.Unmap(), binary.BigEndian.Uint16(body[2*size:]))
	if a := source.Addr(); a.IsUnspecified() || a.IsMulticast() || source.Port() == 0 {
		return bad("source %s", source)
	}
	if err := checkValues(header, prefixSize+2*size+4); err != nil {
		return bad("%v", err)
	}
	return source, nil
}

// checkValues goes through the values after the addresses, which have to end where the header ends, and verifies the checksum.
func checkValues(header []byte, at int) error {
	for at < len(header) {
		if len(header)-at < 3 {
			return errors.New("a value is cut off")
		}
		kind, length := header[at], int(binary.BigEndian.Uint16(header[at+1:]))
		at += 3
		if length > len(header)-at {
			return errors.New("a value is longer than the header")
		}
		if kind == valueCRC32C {
			if length != 4 {
				return errors.New("a checksum that is none")
			}
			zeroed := bytes.Clone(header)
			clear(zeroed[at : at+4])
			if crc32.Checksum(zeroed, crc32.MakeTable(crc32.Castagnoli)) != binary.BigEndian.Uint32(header[at:]) {
				return errors.New("its checksum")
			}
		}
		at += length
	}
	return nil
}

// Read reads the header and not one byte more: what follows is SSH.
func Read(r io.Reader) (netip.AddrPort, error) {
	header := make([]byte, prefixSize, maxHeader)
	for have := 0; have < prefixSize; {
		n, err := r.Read(header[have:])
		have += n
		if n := min(have, len(signature)); string(header[:n]) != signature[:n] {
			if bytes.HasPrefix([]byte("PROXY "), header[:min(n, 6)]) {
				return netip.AddrPort{}, fmt.Errorf("%w: version 1", ErrMalformed)
			}
			return netip.AddrPort{}, ErrMissing
		}
		if err != nil && have == 0 {
			return netip.AddrPort{}, fmt.Errorf("%w: %w", ErrMissing, err)
		}
		if err != nil && have < prefixSize {
			return netip.AddrPort{}, fmt.Errorf("%w: %w", ErrMalformed, err)
		}
	}
	length := int(binary.BigEndian.Uint16(header[14:]))
	if prefixSize+length > maxHeader {
		return netip.AddrPort{}, fmt.Errorf("%w: length", ErrMalformed)
	}
	header = header[:prefixSize+length]
	if _, err := io.ReadFull(r, header[prefixSize:]); err != nil {
		return netip.AddrPort{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return parse(header)
}

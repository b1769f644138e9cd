package bastion

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/netip"
	"time"

	"mayfly/policies"
)

// Specification constants of the PROXY protocol, version 2 (HAProxy, proxy-protocol.txt, section 2.2).
const (
	proxySignature = "\r\n\r\n\x00\r\nQUIT\n"
	proxyPrefix    = 16 // signature, version and command, family and protocol, length
	proxyCommand   = 0x21
	proxyLocal     = 0x20
	proxyTCP4      = 0x11
	proxyTCP6      = 0x21
	proxyUnix      = 0x31
	proxyCRC32C    = 0x03 // type of the value that holds a checksum of the header
)

// Implementation constants of balancers.
const (
	maxProxyHeader = 2048            // bytes, with what a balancer adds about TLS
	headerDeadline = 5 * time.Second // a balancer sends its header at once
	maxAwaited     = 256             // connections of one balancer whose header has not come
)

var (
	errHeaderMissing   = errors.New("no PROXY protocol header")
	errHeaderMalformed = errors.New("malformed PROXY protocol header")
)

// parseProxyHeader reads a whole header and returns the address that it says the connection is from. Only what a balancer in front
// of SSH has to send is accepted: version 2, TCP over IPv4 or IPv6, a length that is that of its content.
func parseProxyHeader(header []byte) (netip.AddrPort, error) {
	bad := func(format string, args ...any) (netip.AddrPort, error) {
		return netip.AddrPort{}, fmt.Errorf("%w: %s", errHeaderMalformed, fmt.Sprintf(format, args...))
	}
	if len(header) < proxyPrefix || string(header[:len(proxySignature)]) != proxySignature {
		return netip.AddrPort{}, errHeaderMissing
	}
	if int(binary.BigEndian.Uint16(header[14:])) != len(header)-proxyPrefix || len(header) > maxProxyHeader {
		return bad("length")
	}
	switch command := header[12]; command {
	case proxyCommand:
	case proxyLocal:
		return bad("LOCAL: the balancer's own connection")
	default:
		return bad("version and command 0x%02x", command)
	}
	body := header[proxyPrefix:]
	size := 4
	switch family := header[13]; family {
	case proxyTCP4:
	case proxyTCP6:
		size = 16
	case proxyUnix:
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
	if err := checkValues(header, proxyPrefix+2*size+4); err != nil {
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
		if kind == proxyCRC32C {
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

// readProxyHeader reads the header and not one byte more: what follows is SSH.
func readProxyHeader(r io.Reader) (netip.AddrPort, error) {
	header := make([]byte, proxyPrefix, maxProxyHeader)
	for have := 0; have < proxyPrefix; {
		n, err := r.Read(header[have:])
		have += n
		if n := min(have, len(proxySignature)); string(header[:n]) != proxySignature[:n] {
			if bytes.HasPrefix([]byte("PROXY "), header[:min(n, 6)]) {
				return netip.AddrPort{}, fmt.Errorf("%w: version 1", errHeaderMalformed)
			}
			return netip.AddrPort{}, errHeaderMissing
		}
		if err != nil && have == 0 {
			return netip.AddrPort{}, fmt.Errorf("%w: %w", errHeaderMissing, err)
		}
		if err != nil && have < proxyPrefix {
			return netip.AddrPort{}, fmt.Errorf("%w: %w", errHeaderMalformed, err)
		}
	}
	length := int(binary.BigEndian.Uint16(header[14:]))
	if proxyPrefix+length > maxProxyHeader {
		return netip.AddrPort{}, fmt.Errorf("%w: length", errHeaderMalformed)
	}
	header = header[:proxyPrefix+length]
	if _, err := io.ReadFull(r, header[proxyPrefix:]); err != nil {
		return netip.AddrPort{}, fmt.Errorf("%w: %w", errHeaderMalformed, err)
	}
	return parseProxyHeader(header)
}

// proxied is a connection that came through a balancer: for all that follows it is from the address of its header.
type proxied struct {
	*net.TCPConn
	source netip.AddrPort
}

func (p *proxied) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(p.source) }

// receive takes a connection that has a place: through a balancer, once its header says from where, and else as it is.
func (s *Server) receive(ctx context.Context, conn *net.TCPConn, place *place) {
	if !place.balancer.IsValid() {
		s.visit(ctx, conn, sourceOf(conn), place)
		return
	}
	source, why := s.throughBalancer(ctx, conn, place)
	if why != "" {
		s.startups.leave(place)
		from := place.balancer
		if source.IsValid() {
			from = source.Addr()
		}
		s.refusals.add(network(from), why, 1, time.Now())
		s.metrics.refused(why)
		s.hangUp(conn)
		return
	}
	s.visit(ctx, &proxied{conn, source}, source, place)
}

// throughBalancer reads the header under its own deadline, decides on its address as on one that had connected itself, and counts the
// connection there instead of as the balancer's.
func (s *Server) throughBalancer(ctx context.Context, conn *net.TCPConn, place *place) (netip.AddrPort, policies.Reason) {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := conn.SetReadDeadline(time.Now().Add(headerDeadline)); err != nil {
		return netip.AddrPort{}, proxyHeaderMissing
	}
	source, err := readProxyHeader(conn)
	switch {
	case place.evicted.Load():
		return netip.AddrPort{}, evictedReason
	case errors.Is(err, errHeaderMalformed):
		s.log.Warn("a balancer's header was refused", "balancer", place.balancer, "error", err)
		return netip.AddrPort{}, proxyHeaderMalformed
	case err != nil:
		return netip.AddrPort{}, proxyHeaderMissing
	}
	now, r := time.Now(), s.ruling.Load()
	if why := s.welcome(r, source.Addr(), now); why != "" {
		return source, why
	}
	evicted, why := s.startups.move(place, network(source.Addr()), r.limits.MaxPerSource, now)
	s.evict(evicted)
	return source, why
}

// balancer is what the visit came through, for its records.
func (v *visit) balancer() string {
	if v.place == nil || !v.place.balancer.IsValid() {
		return ""
	}
	return v.place.balancer.String()
}

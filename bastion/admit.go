package bastion

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"mayfly/policies"
)

// Networks that count as one source: what one host or one customer line has.
const (
	sourceBitsV4 = 32
	sourceBitsV6 = 64
)

// sourceOf returns the peer's address without mapping and zone; it is invalid for a connection that is not TCP.
func sourceOf(conn net.Conn) netip.AddrPort {
	tcp, ok := conn.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}

// network is the prefix by which a source is counted.
func network(source netip.Addr) netip.Prefix {
	bits := sourceBitsV6
	if source.Is4() {
		bits = sourceBitsV4
	}
	p, err := source.Prefix(bits)
	if err != nil {
		return netip.Prefix{} // an invalid address: all of them count as one
	}
	return p
}

// admit decides on the address once more, since a segment may have passed an older filter, and takes a start-up place. A source
// that was refused too often waits for the next minute, unless somebody is in from there.
func (s *Server) admit(conn *net.TCPConn, now time.Time) (leave func(), ok bool) {
	r := s.ruling.Load()
	source := sourceOf(conn).Addr()
	from := network(source)
	verdict := r.bundle.Policy.Admit(source, now)
	why := verdict.Reason
	if verdict.Allow {
		if s.refused.full(from, now) && !s.sessions.from(from) {
			why = sourceTooOften
		} else if leave, why = s.startups.enter(from, r.limits); why == "" {
			if err := release(conn); err != nil {
				s.log.Warn("taking the address filter off a connection", "error", err)
			}
			return leave, true
		}
	}
	s.refusals.add(from, why, 1, now)
	// No farewell: the peer gets a reset, and the kernel keeps nothing.
	if err := errors.Join(conn.SetLinger(0), conn.Close()); err != nil {
		s.log.Debug("closing a refused connection", "error", err)
	}
	return nil, false
}

// startups counts connections that have not authenticated yet. Its table is bounded by the total.
type startups struct {
	mu       sync.Mutex
	total    int
	bySource map[netip.Prefix]int
}

// enter takes a place for a source, or says why there is none.
func (s *startups) enter(from netip.Prefix, limits policies.Limits) (leave func(), refused policies.Reason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.total >= limits.MaxStartups:
		return nil, startupsFull
	case s.bySource[from] >= limits.MaxPerSource:
		return nil, sourceStartupsFull
	}
	if s.bySource == nil {
		s.bySource = make(map[netip.Prefix]int)
	}
	s.total++
	s.bySource[from]++
	return sync.OnceFunc(func() { s.leave(from) }), ""
}

func (s *startups) leave(from netip.Prefix) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total--
	if s.bySource[from]--; s.bySource[from] == 0 {
		delete(s.bySource, from)
	}
}

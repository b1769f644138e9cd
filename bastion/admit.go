package bastion

import (
	"errors"
	"net"
	"net/netip"
	"time"

	"mayfly/bastion/listen"
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
// that serves a penalty is refused, unless somebody is in from there.
func (s *Server) admit(conn *net.TCPConn, now time.Time) (*place, bool) {
	r := s.ruling.Load()
	source := sourceOf(conn).Addr()
	from := network(source)
	balancer := r.bundle.Policy.Balancer(source)
	perSource, why := r.limits.MaxPerSource, policies.Reason("")
	if balancer {
		perSource = maxAwaited
	} else {
		why = s.welcome(r, source, now)
	}
	if why == "" {
		var mine, evicted *place
		if mine, evicted, why = s.startups.enter(conn, from, r.limits, perSource, now); why == "" {
			s.evict(evicted)
			if balancer {
				mine.balancer = source
			}
			if err := listen.Unfilter(conn); err != nil {
				s.log.Warn("taking the address filter off a connection", "error", err)
			}
			return mine, true
		}
	}
	s.refusals.add(from, why, 1, now)
	s.metrics.refused(why)
	if why == sourcePenalised {
		s.refusedAgain(r, source, "", why, now)
	}
	s.hangUp(conn)
	return nil, false
}

// welcome says why a source's connections are not let near a handshake; empty if they are.
func (s *Server) welcome(r *ruling, source netip.Addr, now time.Time) policies.Reason {
	if verdict := r.bundle.Policy.Admit(source, now); !verdict.Allow {
		return verdict.Reason
	}
	from := network(source)
	if _, refused := s.penalties.refused(from, now); refused && !s.sessions.from(from) {
		return sourcePenalised
	}
	return ""
}

// evict ends a connection that has lost its place; its own goroutine writes its record.
func (s *Server) evict(p *place) {
	if p != nil {
		s.metrics.evicted()
		s.hangUp(p.conn)
	}
}

// hangUp closes without a farewell: the peer gets a reset, and the kernel keeps nothing.
func (s *Server) hangUp(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		if err := tcp.SetLinger(0); err != nil {
			s.log.Debug("closing a refused connection", "error", err)
		}
	}
	if err := conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		s.log.Debug("closing a refused connection", "error", err)
	}
}

// punish makes a source pay for a failed authentication, unless somebody is in from there, or the policy exempts it.
func (s *Server) punish(r *ruling, source netip.Addr, why policies.Reason, now time.Time) {
	if from := network(source); !r.bundle.Policy.Exempt(source) && !s.sessions.from(from) {
		s.penalties.add(from, why, now)
	}
}

// letIn forgets what a source has collected, and remembers that somebody logged in from there.
func (s *Server) letIn(source netip.Addr, now time.Time) {
	from := network(source)
	s.penalties.clear(from)
	s.startups.loggedIn(from, now)
}

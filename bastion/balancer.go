package bastion

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"mayfly/bastion/proxy"
	"mayfly/policies"
)

// Implementation constants of balancers.
const (
	headerDeadline = 5 * time.Second // a balancer sends its header at once
	maxAwaited     = 256             // connections of one balancer whose header has not come
)

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
	source, err := proxy.Read(conn)
	switch {
	case place.evicted.Load():
		return netip.AddrPort{}, evictedReason
	case errors.Is(err, proxy.ErrMalformed):
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

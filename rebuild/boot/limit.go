package boot

import (
	"net"
	"net/netip"
	"sync"
)

// limited closes connections over a bound in all or per address, as soon as they are accepted.
type limited struct {
	net.Listener
	total, each int

	mu   sync.Mutex // guards the rest
	all  int
	from map[netip.Addr]int
}

func newLimited(l net.Listener, total, each int) *limited {
	return &limited{Listener: l, total: total, each: each, from: make(map[netip.Addr]int)}
}

// Accept returns the next connection that has a place.
func (l *limited) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if from, ok := l.take(c.RemoteAddr()); ok {
			return &placed{Conn: c, release: sync.OnceFunc(func() { l.give(from) })}, nil
		}
		closeQuietly(c)
	}
}

func (l *limited) take(a net.Addr) (netip.Addr, bool) {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Addr{}, false
	}
	from := ap.Addr().Unmap()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all >= l.total || l.from[from] >= l.each {
		return netip.Addr{}, false
	}
	l.all++
	l.from[from]++
	return from, true
}

func (l *limited) give(from netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all--
	if l.from[from]--; l.from[from] <= 0 {
		delete(l.from, from)
	}
}

// placed gives its place back when it is closed.
type placed struct {
	net.Conn
	release func()
}

func (p *placed) Close() error {
	defer p.release()
	return p.Conn.Close()
}

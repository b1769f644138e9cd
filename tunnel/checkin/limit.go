package checkin

import (
	"hash/maphash"
	"net"
	"net/netip"
	"sync"
)

// Connections at once. An app has one for a moment every twenty seconds, so that a source may be a large network behind one
// address.
const (
	MaxConnections          = 4096
	MaxConnectionsPerSource = 64

	sourceBits6 = 64 // an IPv6 source is its network
)

// Limit bounds a listener's connections: by source it closes those over the limit at once; in all, further ones wait in the
// kernel's queue. Of a source it keeps a hash under a key of this process, and that only while a connection is open.
func Limit(l net.Listener) net.Listener {
	return &limited{Listener: l, slots: make(chan struct{}, MaxConnections), seed: maphash.MakeSeed(), open: map[uint64]int{}}
}

type limited struct {
	net.Listener
	slots chan struct{}
	seed  maphash.Seed

	mu   sync.Mutex
	open map[uint64]int
}

func (l *limited) Accept() (net.Conn, error) {
	for {
		l.slots <- struct{}{}
		conn, err := l.Listener.Accept()
		if err != nil {
			<-l.slots
			return nil, err
		}
		id := l.id(conn.RemoteAddr())
		if l.enter(id) {
			return &limitedConn{Conn: conn, done: sync.OnceFunc(func() { l.leave(id); <-l.slots })}, nil
		}
		<-l.slots
		if err := conn.Close(); err != nil {
			continue // nothing was owed to it
		}
	}
}

func (l *limited) id(a net.Addr) uint64 {
	var source netip.Addr
	if t, ok := a.(*net.TCPAddr); ok {
		source = t.AddrPort().Addr().Unmap().WithZone("")
	}
	if source.Is6() {
		if p, err := source.Prefix(sourceBits6); err == nil {
			source = p.Addr()
		}
	}
	return maphash.Comparable(l.seed, source)
}

func (l *limited) enter(id uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[id] >= MaxConnectionsPerSource {
		return false
	}
	l.open[id]++
	return true
}

func (l *limited) leave(id uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[id]--; l.open[id] == 0 {
		delete(l.open, id)
	}
}

type limitedConn struct {
	net.Conn
	done func()
}

func (c *limitedConn) Close() error {
	defer c.done()
	return c.Conn.Close()
}

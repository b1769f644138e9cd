package server

import (
	"hash/maphash"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Limits of the registration endpoint, and of the one inside the tunnel.
const (
	MaxConnections          = 256             // at once
	MaxConnectionsPerSource = 16              // at once
	RegisterBurst           = 30              // registrations that a source may make at once
	RegisterEvery           = 2 * time.Second // after which it may make another
	MaxSessionsPerSource    = 32              // sessions: of a household or an office behind one address; who moves has two
	MaxNoticesPerClient     = 4               // connections inside the tunnel: one is held for notices, others come and go
	MaxSources              = 2 * MaxPeers    // sources remembered, more than can have a session; full: strangers wait
	sourceBits6             = 64              // an IPv6 source is its network
)

// sources counts what each source does. It keeps no addresses: only a hash under a key of this process, and that only while the
// source has a connection open, a session, or less than its full allowance.
type sources struct {
	seed      maphash.Seed
	total     int // connections at once
	perSource int

	mu    sync.Mutex
	open  int
	table map[uint64]*source
}

type source struct {
	open     int
	sessions int
	full     time.Time // when the allowance will be whole again
}

func newSources(total, perSource int) *sources {
	return &sources{seed: maphash.MakeSeed(), total: total, perSource: perSource, table: map[uint64]*source{}}
}

// insideSources has room for two connections of every client that the network holds.
func insideSources(network netip.Prefix) *sources {
	return newSources(2*newPool(network).capacity(), MaxNoticesPerClient)
}

func (s *sources) id(a netip.Addr) uint64 {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		if p, err := a.Prefix(sourceBits6); err == nil {
			a = p.Addr()
		}
	}
	return maphash.Comparable(s.seed, a)
}

// of returns the entry of a source, making room by forgetting those that need no counting. s.mu is held.
func (s *sources) of(a netip.Addr, now time.Time) *source {
	id := s.id(a)
	if e := s.table[id]; e != nil {
		return e
	}
	if len(s.table) >= MaxSources {
		s.forget(now)
	}
	if len(s.table) >= MaxSources {
		return nil
	}
	e := &source{}
	s.table[id] = e
	return e
}

func (s *sources) forget(now time.Time) {
	for id, e := range s.table {
		if e.open == 0 && e.sessions == 0 && !e.full.After(now) {
			delete(s.table, id)
		}
	}
}

// sweep forgets the sources that need no counting any more.
func (s *sources) sweep(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(now)
}

// connect counts a connection, or says no.
func (s *sources) connect(a netip.Addr, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open >= s.total {
		return false
	}
	e := s.of(a, now)
	if e == nil || e.open >= s.perSource {
		return false
	}
	e.open++
	s.open++
	return true
}

func (s *sources) disconnect(a netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open--
	if e := s.table[s.id(a)]; e != nil {
		e.open--
	}
}

// allow takes one registration from a source's allowance, or says no.
func (s *sources) allow(a netip.Addr, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.of(a, now)
	if e == nil {
		return false
	}
	full := e.full
	if full.Before(now) {
		full = now
	}
	if full = full.Add(RegisterEvery); full.Sub(now) > RegisterBurst*RegisterEvery {
		return false
	}
	e.full = full
	return true
}

// hold takes the place of a session until left is called, or says no.
func (s *sources) hold(a netip.Addr, now time.Time) (left func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.of(a, now)
	if e == nil || e.sessions >= MaxSessionsPerSource {
		return nil, false
	}
	e.sessions++
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		e.sessions-- // the entry is in the table as long as it has sessions
	}), true
}

// limited is a listener that closes connections over the limits at once.
type limited struct {
	net.Listener
	sources *sources
}

func (l limited) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from := remote(c.RemoteAddr())
		if l.sources.connect(from, time.Now()) {
			return &counted{Conn: c, done: sync.OnceFunc(func() { l.sources.disconnect(from) })}, nil
		}
		if err := c.Close(); err != nil {
			continue // nothing was owed to it
		}
	}
}

type counted struct {
	net.Conn
	done func()
}

func (c *counted) Close() error {
	defer c.done()
	return c.Conn.Close()
}

// remote is the address of a TCP peer; the zero address when there is none.
func remote(a net.Addr) netip.Addr {
	if t, ok := a.(*net.TCPAddr); ok {
		return t.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

package bastion

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"mayfly/policies"
)

// Implementation constants of the start-up places.
const (
	// silentFor is how long a connection may say nothing before its own network's next one takes its place. A client greets
	// within a round trip; who holds places without a word loses them one by one.
	silentFor = time.Second
	// recentLogin is how long a network in which somebody logged in is preferred to others.
	recentLogin = 12 * time.Hour
	// maxFamiliar bounds the networks that are remembered for that. Only who logs in gets one.
	maxFamiliar = 4096
)

// Stages of a connection that has not authenticated, in the order in which they are given up.
const (
	stageArrived   int32 = iota
	stageSpoke           // it has sent something
	stageExchanged       // the key exchange is done
	stageSigning         // a key was offered: somebody may be looking for it, to touch it
)

// place is a connection's place among those that have not authenticated.
type place struct {
	conn    net.Conn
	since   time.Time
	stage   atomic.Int32
	evicted atomic.Bool

	balancer netip.Addr // it connected, and says in a header for whom; else invalid

	// owned by startups
	from  *holder
	index int // in startups.all; -1: left
}

// holder is a network that holds places.
type holder struct {
	network  netip.Prefix
	places   int
	familiar bool // somebody logged in from there lately
}

// reached notes how far a connection has come; a connection in a test may have no place.
func (p *place) reached(stage int32) {
	if p != nil {
		p.stage.Store(stage)
	}
}

// startups holds the connections that have not authenticated yet. When it is full, a newcomer is not refused: somebody else goes,
// so that filling it keeps nobody out. Its tables are bounded by the total.
type startups struct {
	mu       sync.Mutex
	all      []*place
	bySource map[netip.Prefix]*holder
	familiar map[netip.Prefix]time.Time // when somebody last logged in from there
}

// enter takes a place for a connection. If that costs another its place, the other one is returned, and the caller closes it.
// A network that holds as many as it may gives up its own oldest that has not said a word, and else is refused.
func (s *startups) enter(conn net.Conn, from netip.Prefix, limits policies.Limits, perSource int, now time.Time) (mine, evicted *place, refused policies.Reason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case limits.MaxStartups <= 0 || perSource <= 0:
		return nil, nil, startupsFull
	case s.held(from) >= perSource:
		if evicted = s.silent(from, now); evicted == nil {
			return nil, nil, sourceStartupsFull
		}
	case len(s.all) >= limits.MaxStartups:
		// Only the connection that would go is asked whether it has spoken: one question for each, in all its time.
		for evicted = s.victim(); evicted.stage.Load() == stageArrived && !saidNothing(evicted.conn); evicted = s.victim() {
			evicted.stage.CompareAndSwap(stageArrived, stageSpoke)
		}
	}
	if evicted != nil {
		s.remove(evicted)
		evicted.evicted.Store(true)
	}
	mine = &place{conn: conn, since: now, from: s.takes(from, now), index: len(s.all)}
	s.all = append(s.all, mine)
	return mine, evicted, ""
}

// leave gives a place back; a place that was left, or lost, before is no error.
func (s *startups) leave(p *place) {
	if p == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(p)
}

// move counts a place under another network: the one that a balancer's header names.
func (s *startups) move(p *place, to netip.Prefix, perSource int, now time.Time) (evicted *place, refused policies.Reason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.index < 0 {
		return nil, evictedReason
	}
	if s.held(to) >= perSource {
		if evicted = s.silent(to, now); evicted == nil {
			return nil, sourceStartupsFull
		}
		s.remove(evicted)
		evicted.evicted.Store(true)
	}
	s.gives(p.from)
	p.from = s.takes(to, now)
	return evicted, ""
}

func (s *startups) remove(p *place) {
	if p.index < 0 {
		return
	}
	last := len(s.all) - 1
	s.all[p.index] = s.all[last]
	s.all[p.index].index = p.index
	s.all[last] = nil
	s.all = s.all[:last]
	p.index = -1
	s.gives(p.from)
}

func (s *startups) held(from netip.Prefix) int {
	if h := s.bySource[from]; h != nil {
		return h.places
	}
	return 0
}

func (s *startups) takes(from netip.Prefix, now time.Time) *holder {
	if s.bySource == nil {
		s.bySource = make(map[netip.Prefix]*holder)
	}
	h := s.bySource[from]
	if h == nil {
		h = &holder{network: from, familiar: s.isFamiliar(from, now)}
		s.bySource[from] = h
	}
	h.places++
	return h
}

func (s *startups) gives(h *holder) {
	if h.places--; h.places == 0 {
		delete(s.bySource, h.network)
	}
}

// victim is who goes when all places are taken: of the network that holds most of them; of those, of a network in which nobody
// logged in lately; of those, who has come least far; of those, the oldest. A connection that has sent nothing goes before one that has.
func (s *startups) victim() *place {
	var worst *place
	for _, p := range s.all {
		if worst == nil || p.from.places > worst.from.places {
			worst = p
			continue
		}
		if p.from.places < worst.from.places {
			continue
		}
		switch stage, other := p.stage.Load(), worst.stage.Load(); {
		case p.from.familiar != worst.from.familiar:
			if worst.from.familiar {
				worst = p
			}
		case stage != other:
			if stage < other {
				worst = p
			}
		case p.since.Before(worst.since):
			worst = p
		}
	}
	return worst
}

// silent is a network's oldest connection that has sent nothing for a while.
func (s *startups) silent(from netip.Prefix, now time.Time) *place {
	var oldest *place
	for _, p := range s.all {
		if p.from.network != from || now.Sub(p.since) < silentFor || oldest != nil && !p.since.Before(oldest.since) {
			continue
		}
		if saidNothing(p.conn) {
			oldest = p
		}
	}
	return oldest
}

// saidNothing asks the kernel, which counts what has arrived: reading the connection is the handshake's.
func saidNothing(conn net.Conn) bool {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return true
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return true
	}
	var info *unix.TCPInfo
	err = onSocket(raw, func(fd int) (err error) {
		info, err = unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		return err
	})
	return err != nil || info.Bytes_received == 0 // a connection that cannot be asked is closed
}

// loggedIn remembers that somebody was let in from a network.
func (s *startups) loggedIn(from netip.Prefix, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.familiar == nil {
		s.familiar = make(map[netip.Prefix]time.Time)
	}
	if _, known := s.familiar[from]; !known && len(s.familiar) >= maxFamiliar {
		var oldest netip.Prefix
		for n, at := range s.familiar {
			if !oldest.IsValid() || at.Before(s.familiar[oldest]) {
				oldest = n
			}
		}
		delete(s.familiar, oldest)
	}
	s.familiar[from] = now
	if h := s.bySource[from]; h != nil {
		h.familiar = true
	}
}

func (s *startups) isFamiliar(from netip.Prefix, now time.Time) bool {
	at, ok := s.familiar[from]
	return ok && now.Sub(at) < recentLogin
}

func onSocket(raw syscall.RawConn, f func(fd int) error) error {
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil {
		return err
	}
	return inner
}

package server

import (
	"fmt"
	"net/netip"
	"sync"
	"time"

	"mayfly/tunnel/device"
	"mayfly/tunnel/wire"
)

// When a peer is let go.
const (
	PeerExpiry   = 5 * time.Minute  // without a handshake: three rekeys missed
	ReleaseGrace = 2 * time.Second  // after a release, so that its answer arrives
	SweepEvery   = time.Second      // how often the table is looked through
	IdleAfter    = 10 * time.Second // nothing but housekeeping for so long: in a drain the peer no longer counts
	SilentAfter  = 60 * time.Second // a client that knows of the drain has gone without a word
)

// plane is what the table needs of the data plane.
type plane interface {
	AddPeer(device.Peer) error
	RemovePeer(device.Key) error
	Peers() (map[device.Key]device.State, error)
}

// peer is a session.
type peer struct {
	address  netip.Addr
	since    time.Time // registered
	released time.Time // zero: not yet
	informed bool      // has heard that the server drains, and says itself when it is done
	meter    device.Meter
	left     func() // gives its source the place back
}

// peers is the table of sessions. It lives in memory and nowhere else.
type peers struct {
	plane plane

	mu        sync.Mutex
	pool      *pool
	byKey     map[device.Key]*peer
	byAddress map[netip.Addr]device.Key
	closed    bool // drains: takes no new session
}

func newPeers(plane plane, network netip.Prefix) *peers {
	return &peers{plane: plane, pool: newPool(network), byKey: map[device.Key]*peer{}, byAddress: map[netip.Addr]device.Key{}}
}

// register begins a session for a fresh key. When the session is forgotten, it calls left.
func (t *peers) register(key device.Key, left func(), now time.Time) (netip.Addr, device.Key, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return netip.Addr{}, device.Key{}, &wire.Refusal{Reason: wire.Draining}
	}
	if t.byKey[key] != nil {
		return netip.Addr{}, device.Key{}, &wire.Refusal{Reason: wire.KeyInUse}
	}
	address, ok := t.pool.take()
	if !ok {
		return netip.Addr{}, device.Key{}, &wire.Refusal{Reason: wire.Full}
	}
	preshared := device.NewPresharedKey()
	err := t.plane.AddPeer(device.Peer{
		PublicKey: key,
		Preshared: preshared,
		Allowed:   []netip.Prefix{netip.PrefixFrom(address, address.BitLen())},
	})
	if err != nil {
		t.pool.free(address)
		return netip.Addr{}, device.Key{}, err
	}
	t.byKey[key] = &peer{address: address, since: now, left: left}
	t.byAddress[address] = key
	return address, preshared, nil
}

// release ends the session of key, if from is its inner address; WireGuard has proved who sends from it.
func (t *peers) release(key device.Key, from netip.Addr, now time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.byKey[key]
	if p == nil || p.address != from {
		return &wire.Refusal{Reason: wire.NotYours}
	}
	if p.released.IsZero() {
		p.released = now
	}
	return nil
}

// inform notes that the client at an inner address has heard of the drain.
func (t *peers) inform(from netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.byKey[t.byAddress[from]]; p != nil {
		p.informed = true
	}
}

// knows tells whether an inner address belongs to a session.
func (t *peers) knows(from netip.Addr) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, ok := t.byAddress[from]
	return ok
}

// close takes no new session from now on.
func (t *peers) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
}

// count is the number of sessions that were not released.
func (t *peers) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for _, p := range t.byKey {
		if p.released.IsZero() {
			n++
		}
	}
	return n
}

// sweep forgets peers whose time is up and returns how many of the rest have something in flight.
func (t *peers) sweep(now time.Time) (inFlight int, err error) {
	states, err := t.plane.Peers()
	if err != nil {
		return 0, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for key, p := range t.byKey {
		state, known := states[key]
		if known {
			p.meter.Note(state, now, IdleAfter)
		}
		if gone(*p, state, now) {
			if err := t.forget(key, p); err != nil {
				return 0, err
			}
			continue
		}
		if !known || busy(*p, now) { // not known: added since
			inFlight++
		}
	}
	return inFlight, nil
}

func (t *peers) forget(key device.Key, p *peer) error {
	if err := t.plane.RemovePeer(key); err != nil {
		return fmt.Errorf("letting a peer go: %w", err)
	}
	t.pool.free(p.address)
	delete(t.byAddress, p.address)
	delete(t.byKey, key)
	p.left()
	return nil
}

// gone decides whether a peer is to be forgotten.
func gone(p peer, s device.State, now time.Time) bool {
	if !p.released.IsZero() {
		return now.Sub(p.released) >= ReleaseGrace
	}
	alive := p.since
	if s.LastHandshake.After(alive) {
		alive = s.LastHandshake
	}
	return now.Sub(alive) >= PeerExpiry
}

// busy decides whether a drain still waits for a peer. A stock client hears of no drain: it counts while it carries traffic. A
// client that has heard says itself when it is done, unless it is gone without a word.
func busy(p peer, now time.Time) bool {
	if !p.released.IsZero() {
		return false
	}
	if p.informed {
		return p.meter.SilentFor(now) < SilentAfter
	}
	return p.meter.IdleFor(now) < IdleAfter
}

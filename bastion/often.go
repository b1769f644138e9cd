package bastion

import (
	"net/netip"
	"sync"
	"time"
)

// Bounds of what a source may have written down before it has authenticated. A connection in its handshake keeps its record,
// so that a source's share of a minute is maxRefusals and its start-up places.
const (
	maxRefusals    = 30   // closing records of refused connections, per network and minute
	maxRefusedFrom = 1024 // networks that are counted by themselves in one minute; the rest count as one
)

// refusedVisits counts the closing records of connections that never authenticated, so that a stranger at a listed address
// cannot fill the log with them: beyond the bound it is refused before its handshake, which is counted and not recorded singly.
type refusedVisits struct {
	mu       sync.Mutex
	began    time.Time // of the minute
	bySource map[netip.Prefix]int
}

// add counts one closing record.
func (r *refusedVisits) add(from netip.Prefix, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turn(now)
	r.bySource[r.key(from)]++
}

// full tells whether a network has had its share of this minute.
func (r *refusedVisits) full(from netip.Prefix, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turn(now)
	return r.bySource[r.key(from)] >= maxRefusals
}

// turn begins a new minute when the old one is over.
func (r *refusedVisits) turn(now time.Time) {
	if r.bySource == nil || now.Sub(r.began) >= time.Minute {
		r.began, r.bySource = now, make(map[netip.Prefix]int)
	}
}

func (r *refusedVisits) key(from netip.Prefix) netip.Prefix {
	if _, known := r.bySource[from]; !known && len(r.bySource) >= maxRefusedFrom {
		return netip.Prefix{}
	}
	return from
}

package bastion

import (
	"net/netip"
	"sync"
	"time"
)

// There are two bounds of closing records of connections that never authenticated, and both are needed. This one keeps a minute's flood of one
// network from pushing everybody else's records out of the bounded files of refusals. The hourly one (maxRefusedClosings) keeps them from filling
// the log itself, which forgets nothing: a minute's bound would let in over two million of them a day, and an hourly bound alone would let one
// network's flood turn all others of the hour into mere counts.

// Bounds of what strangers, who never authenticated, may have written down singly in one minute. What exceeds them is counted.
const (
	maxStrangers      = 30   // closing records, per network
	maxAllStrangers   = 1800 // closing records, of all networks
	maxStrangersNamed = 1024 // networks that are counted by themselves; the rest count as one
)

// strangers counts the closing records of connections that never authenticated, so that none of them can fill the log.
type strangers struct {
	mu       sync.Mutex
	began    time.Time // of the minute
	all      int
	bySource map[netip.Prefix]int
}

// take asks for a closing record, and tells whether there is one left for this network and minute.
func (s *strangers) take(from netip.Prefix, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bySource == nil || now.Sub(s.began) >= time.Minute {
		s.began, s.all, s.bySource = now, 0, make(map[netip.Prefix]int)
	}
	if _, known := s.bySource[from]; !known && len(s.bySource) >= maxStrangersNamed {
		from = netip.Prefix{}
	}
	if s.all >= maxAllStrangers || s.bySource[from] >= maxStrangers {
		return false
	}
	s.all++
	s.bySource[from]++
	return true
}

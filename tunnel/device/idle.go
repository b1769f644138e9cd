package device

import "time"

// HousekeepingBytes is how much may pass in IdleAfter before a peer counts as busy: a handshake and two keepalives each way.
const HousekeepingBytes = 512

// Meter tells whether a peer carries anything but WireGuard's own housekeeping. The zero value has seen nothing.
type Meter struct {
	bytes uint64    // at mark
	mark  time.Time // start of the present window
	busy  time.Time // last time that more than housekeeping had passed
	any   time.Time // last time that any byte had passed
	last  uint64
}

// Note takes a peer's counters at now.
func (m *Meter) Note(s State, now time.Time, window time.Duration) {
	total := s.Received + s.Sent
	if m.mark.IsZero() {
		*m = Meter{bytes: total, mark: now, busy: now, any: now, last: total}
		return
	}
	if total != m.last {
		m.last, m.any = total, now
	}
	if total-m.bytes > HousekeepingBytes {
		m.busy, m.bytes, m.mark = now, total, now
		return
	}
	if now.Sub(m.mark) >= window {
		m.bytes, m.mark = total, now
	}
}

// IdleFor is how long there was nothing but housekeeping.
func (m *Meter) IdleFor(now time.Time) time.Duration { return now.Sub(m.busy) }

// SilentFor is how long there was nothing at all.
func (m *Meter) SilentFor(now time.Time) time.Duration { return now.Sub(m.any) }

package bastion

import (
	"net/netip"
	"sync"
	"time"

	"mayfly/policies"
)

// Bounds of what is counted by itself, by network and reason; the rest count as one for each reason.
const (
	maxCounted     = 1024 // at a time, which is in one minute
	maxCountedHour = 8192 // begun in one hour
)

// refusals counts what is refused before admission, by network and reason, so that strangers cannot fill the log: a count is
// written when it begins and, if it grew, once more when its minute is over.
type refusals struct {
	mu     sync.Mutex
	counts map[refusalKey]*refusalCount
	hour   time.Time // when the hour began
	begun  int       // counts of a network by itself in this hour
}

type refusalKey struct {
	network netip.Prefix // invalid: nobody knows, or too many
	reason  policies.Reason
}

type refusalCount struct {
	began          time.Time
	total, written int
}

// refusalRecord is a count. Records of one network, reason and minute replace each other: the last holds the whole count.
type refusalRecord struct {
	Network string          `json:"network,omitempty"` // left out if the kernel dropped it, or too many others were counted
	Reason  policies.Reason `json:"reason"`
	Minute  time.Time       `json:"minute"` // when the count began
	Count   int             `json:"count"`
}

func (r *refusals) add(from netip.Prefix, why policies.Reason, n int, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.counts == nil {
		r.counts = make(map[refusalKey]*refusalCount)
	}
	if d := now.Sub(r.hour); d >= time.Hour || d < 0 {
		r.hour, r.begun = now, 0
	}
	key := refusalKey{from, why}
	if r.counts[key] == nil && (len(r.counts) >= maxCounted || r.begun >= maxCountedHour) {
		key.network = netip.Prefix{}
	}
	if r.counts[key] == nil {
		r.counts[key] = &refusalCount{began: now}
		if key.network.IsValid() {
			r.begun++
		}
	}
	r.counts[key].total += n
}

// flush writes the counts that are due and forgets those whose minute is over.
func (r *refusals) flush(now time.Time, write func(refusalRecord)) {
	r.mu.Lock()
	var due []refusalRecord
	for key, c := range r.counts {
		over := now.Sub(c.began) >= time.Minute
		if c.written == 0 || over && c.total > c.written {
			record := refusalRecord{Reason: key.reason, Minute: c.began.UTC(), Count: c.total}
			if key.network.IsValid() {
				record.Network = key.network.String()
			}
			due = append(due, record)
			c.written = c.total
		}
		if over {
			delete(r.counts, key)
		}
	}
	r.mu.Unlock()
	for _, record := range due {
		write(record)
	}
}

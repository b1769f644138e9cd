package signer

import (
	"sync"
	"time"

	"mayfly/rebuild/join"
)

// Bounds for each kind and name within rateWindow.
const (
	rateWindow     = time.Hour
	maxRateNames   = 1 << 16
	ticketsPerHour = 60
	admitsPerHour  = 30
	quotesPerHour  = 60 // challenges, and as many answers
	renewsPerHour  = 60
	serviceHour    = 60
	pagesPerHour   = 12 // of one engineer
	hostsPerHour   = 30
	listsPerHour   = 3600
	drainsPerHour  = 12
)

// callersPerHour is how many refusals of one caller go on record; the talk has them all.
const callersPerHour = 60

type rateKey struct{ kind, name string }

// rate counts what was signed, by kind and name, over the last window. It lives in memory: whoever can restart the signer can
// read its keys as well.
type rate struct {
	mu   sync.Mutex // guards seen
	seen map[rateKey][]time.Time
}

// allow takes one place, or refuses.
func (r *rate) allow(kind, name string, limit int, now time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen == nil {
		r.seen = make(map[rateKey][]time.Time)
	}
	k := rateKey{kind, name}
	times := r.seen[k]
	for len(times) > 0 && now.Sub(times[0]) >= rateWindow {
		times = times[1:]
	}
	if len(times) >= limit || (times == nil && len(r.seen) >= maxRateNames) {
		r.seen[k] = times
		return join.Refuse(join.RateLimited, "%d %s for %q in an hour", limit, kind, name)
	}
	r.seen[k] = append(times, now)
	return nil
}

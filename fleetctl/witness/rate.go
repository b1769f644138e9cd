package witness

import (
	"net/netip"
	"sync"
	"time"
)

// Requests of one source.
const (
	perSecond  = 5
	burst      = 30
	maxSources = 4096 // beyond these, new ones share one allowance
	network6   = 64   // an IPv6 source is its network
)

// rates is how often each source has asked. Its zero value is ready.
type rates struct {
	mu      sync.Mutex
	sources map[netip.Prefix]*allowance
	others  allowance
}

// allowance is what is left to ask; its zero value is full.
type allowance struct {
	used float64
	at   time.Time
}

func (a *allowance) take(now time.Time) bool {
	if d := now.Sub(a.at).Seconds(); d > 0 {
		a.used, a.at = max(a.used-d*perSecond, 0), now
	}
	if a.used+1 > burst {
		return false
	}
	a.used++
	return true
}

// allow reports whether the source may ask now.
func (r *rates) allow(source netip.Addr, now time.Time) bool {
	bits := 32
	if source = source.Unmap().WithZone(""); source.Is6() {
		bits = network6
	}
	from, err := source.Prefix(bits)
	if err != nil || !source.IsValid() {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sources == nil {
		r.sources = map[netip.Prefix]*allowance{}
	}
	a, ok := r.sources[from]
	if !ok && len(r.sources) >= maxSources {
		r.forget(now)
	}
	if !ok && len(r.sources) >= maxSources {
		return r.others.take(now)
	}
	if !ok {
		a = &allowance{at: now}
		r.sources[from] = a
	}
	return a.take(now)
}

// forget drops the sources whose allowance is full again.
func (r *rates) forget(now time.Time) {
	for from, a := range r.sources {
		if a.used <= now.Sub(a.at).Seconds()*perSecond {
			delete(r.sources, from)
		}
	}
}

package plan

import (
	"fmt"
	"strings"
	"time"
)

// work is how long a server of a region may have to wait, part by part. While a due server waits, one of the limits is reached: its
// region's or its role's floor, max_parallel, the cap of one of its domains, or max_per_hour. Each server of the fleet leaves once within half an
// age, so no limit can be reached for longer than all servers that share it take, so many at once. The sum bounds the wait, whatever the order.
//
// Where windows are so far apart that half an age has too little open time (weekends, and an age of a week), open time takes the place of half an
// age: a server that leaves has at least so much open time before its next deadline as the emptiest stretch of an age has. If it is due only in the
// last half of that, then as much passes between its leaving and its being due again, so within the other half none leaves twice, and the sum holds.
// It takes both halves: after a week of quick boots all deadlines are early, and the next week's boots may all be slow.
type work struct {
	region, role, fleet, solos, extra int // rounds
	caps                              [4]int
	all                               int
	hard                              time.Duration // all rounds
	rate                              time.Duration
}

// work adds up the rounds of a region.
func (sh *shape) work(g int) work {
	var w work
	if sh.sizes[g].servers == 0 && len(sh.regions[g].spares) == 0 && sh.regions[g].solos == [2]bool{} && sh.regions[g].worst == [4]int32{-1, -1, -1, -1} {
		return w
	}
	if z := sh.sizes[g]; z.servers > 0 {
		w.region = rounds(z.servers, max(1, sh.width(int32(g))))
	}
	for _, p := range sh.regions[g].roles {
		if z := sh.sizes[p]; z.servers > 0 && sh.pools[p].floor > 0 {
			w.role = max(w.role, rounds(z.servers, max(1, sh.width(p))))
		}
	}
	w.fleet = rounds(len(sh.nodes), sh.r.MaxParallel)
	for k, d := range sh.regions[g].worst {
		if d >= 0 && sh.domains[d].max < sh.domains[d].size {
			w.caps[k] = sh.domains[d].rounds()
		}
	}
	for k, in := range sh.regions[g].solos {
		if in && sh.solos[k] > 1 {
			w.solos += sh.solos[k] - 1
		}
	}
	if len(sh.r.Train.Steps) > 0 { // what a train has begun is in the way once more
		w.extra += 2
		for k := range w.caps {
			w.extra += w.caps[k]
		}
	}
	if sh.r.MaxSpares > 0 && len(sh.regions[g].spares) > 0 {
		w.extra++ // the spare has to come first
	}
	w.all = w.region + w.role + w.fleet + w.solos + w.extra
	for _, n := range w.caps {
		w.all += n
	}
	w.hard = time.Duration(w.all) * sh.r.Turn()
	if sh.r.MaxPerHour > 0 {
		w.rate = time.Duration(rounds(len(sh.nodes), sh.r.MaxPerHour)) * time.Hour
	}
	return w
}

// leads are what the engine needs of each region.
func (sh *shape) leads() []place {
	all := make([]place, len(sh.regions))
	for g := range all {
		w := sh.work(g)
		all[g] = place{calendar: sh.calendars[g], reach: sh.regions[g].reach, roles: sh.regions[g].roles, lead: int64(w.hard + w.rate), hard: int64(w.hard), width: sh.width(int32(g)),
			early: int64(sh.r.MaxAge * EarlyPercent / 100), jitter: int64(sh.r.MaxAge * JitterPercent / 100)}
	}
	return all
}

// sum is the arithmetic of a region's wait in words.
func (sh *shape) sum(g int, w work) string {
	var b strings.Builder
	z := sh.sizes[g]
	fmt.Fprintf(&b, "region %s: (%d servers / %d at once", sh.s.Regions[g].Name, z.servers, sh.width(int32(g)))
	if w.role > 0 {
		fmt.Fprintf(&b, " + %d rounds of a role", w.role)
	}
	fmt.Fprintf(&b, " + %d in the fleet / max_parallel %d", len(sh.nodes), sh.r.MaxParallel)
	for k, n := range w.caps {
		if n > 0 {
			d := sh.domains[sh.regions[g].worst[k]]
			fmt.Fprintf(&b, " + %d of %s %s / %d at once", d.size, kinds[k], d.name, d.max)
		}
	}
	if w.solos > 0 {
		fmt.Fprintf(&b, " + %d bastions before the last", w.solos)
	}
	if w.extra > 0 {
		fmt.Fprintf(&b, " + %d for trains and spares", w.extra)
	}
	fmt.Fprintf(&b, ") = %d rounds of %v (drain %v + %d boots of %v + %v + bake %v) take %v", w.all, sh.r.Turn(), sh.r.DrainLimit,
		sh.r.Retries+1, WipeLimit, sh.r.BootLimit, sh.r.Bake, w.hard)
	return b.String()
}

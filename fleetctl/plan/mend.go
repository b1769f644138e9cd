package plan

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// change is one number of the rules or of the fleet, and the least that it has to become.
type change struct {
	what string // "floor", "role_floor", "server", "max_age", "max_parallel", "cap", "max_per_hour", "window", "max_spares"
	pool int32
	to   int64
	text string
}

// mends says which smallest single change would make a refused region feasible, and which others would as well.
func (sh *shape) mends(r Refusal, now time.Time, ahead time.Duration) string {
	var texts []string
	for _, c := range sh.changes(r, now, ahead) {
		texts = append(texts, c.text)
	}
	return strings.Join(texts, ", or ")
}

// changes are found by trying: for each number the least that makes the region's refusals go away.
func (sh *shape) changes(r Refusal, now time.Time, ahead time.Duration) []change {
	g := slices.IndexFunc(sh.s.Regions, func(x Region) bool { return x.Name == r.Region })
	if g < 0 {
		return nil
	}
	var found []change
	try := func(what string, pool int32, from, to int64, text string) {
		works := func(v int64) bool {
			other := sh.with(change{what: what, pool: pool, to: v}, now, ahead)
			_, refused := other.checkRegion(g, now, ahead)
			return len(refused) == 0
		}
		if from == to || !works(to) {
			return
		}
		for d := to - from; d > 1 || d < -1; d = to - from { // from does not work, to does
			if mid := from + d/2; works(mid) {
				to = mid
			} else {
				from = mid
			}
		}
		if what == "max_age" {
			text = fmt.Sprintf(text, time.Duration(to)*time.Minute)
		} else {
			text = fmt.Sprintf(text, to)
		}
		found = append(found, change{what, pool, to, text})
	}
	name := sh.s.Regions[g].Name
	if r.Code == WindowImpossible {
		try("window", 0, 0, 24*60, "windows that end %d minutes later")
	}
	if r.Code == RateImpossible || r.Code == WindowImpossible && sh.r.MaxPerHour > 0 {
		try("max_per_hour", 0, int64(sh.r.MaxPerHour), int64(len(sh.nodes))+1, fmt.Sprintf("max_per_hour up to %%d (now %d)", sh.r.MaxPerHour))
	}
	if r.Code == CapImpossible {
		for k, d := range sh.regions[g].worst {
			if d >= 0 {
				try("cap", int32(k), int64(sh.domains[d].max), int64(sh.domains[d].size), fmt.Sprintf("at most %%d of a %s out (now %d, %s)", kinds[k], sh.domains[d].max, sh.domains[d].name))
			}
		}
	}
	for _, p := range append([]int32{int32(g)}, sh.regions[g].roles...) {
		q := sh.pools[p]
		what := "of region " + name
		if q.role != "" {
			what += ", role " + q.role
		}
		try("floor", p, q.floor, 0, fmt.Sprintf("the floor %s down to %%d (now %d)", what, q.floor))
		if r.Code == FloorImpossible {
			try("server", p, 0, max(1, sh.sizes[p].biggest, q.floor), "one more server "+what+" with %d Mbit/s")
		}
	}
	if len(sh.regions[g].spares) > sh.r.MaxSpares {
		try("max_spares", 0, int64(sh.r.MaxSpares), int64(len(sh.regions[g].spares)), fmt.Sprintf("max_spares up to %%d (now %d)", sh.r.MaxSpares))
	}
	if r.Code != FloorImpossible {
		now := int64(sh.r.MaxAge / time.Minute)
		try("max_age", 0, now, 64*now+64, fmt.Sprintf("max_age up to %%v (now %v)", sh.r.MaxAge))
		try("max_parallel", 0, int64(sh.r.MaxParallel), int64(len(sh.nodes)), fmt.Sprintf("max_parallel up to %%d (now %d)", sh.r.MaxParallel))
	}
	return found
}

// with is the shape with one number changed.
func (sh *shape) with(c change, now time.Time, ahead time.Duration) *shape {
	x := *sh
	dated := len(x.r.Windows)+len(x.r.Blackouts) > 0
	switch c.what {
	case "floor":
		x.pools = slices.Clone(sh.pools)
		x.pools[c.pool].floor = c.to
		return &x
	case "server":
		x.pools, x.sizes = slices.Clone(sh.pools), slices.Clone(sh.sizes)
		x.nodes = append(slices.Clip(slices.Clone(sh.nodes)), node{})
		pools := []int32{c.pool}
		if g := x.pools[c.pool].region; g != c.pool {
			pools = append(pools, g)
		}
		for _, p := range pools {
			x.add(p, int(c.to), "one more")
		}
		return &x
	case "cap":
		x.domains = slices.Clone(sh.domains)
		for i := range x.domains {
			if d := &x.domains[i]; int32(d.kind) == c.pool {
				d.max = max(d.max, int32(c.to))
			}
		}
		return &x
	case "max_per_hour":
		x.r.MaxPerHour = int(c.to)
		return &x
	case "max_spares":
		x.r.MaxSpares = int(c.to)
		return &x
	case "max_parallel":
		x.r.MaxParallel = int(c.to)
		return &x
	case "max_age":
		x.r.MaxAge = time.Duration(c.to) * time.Minute
	case "window":
		x.r.Windows = slices.Clone(sh.r.Windows)
		for i := range x.r.Windows {
			x.r.Windows[i].To = min(24*60, x.r.Windows[i].To+int(c.to))
		}
	}
	if dated {
		x.calendars = calendars(x.s, x.r, now.Add(-24*time.Hour), now.Add(ahead+x.r.MaxAge))
	}
	return &x
}

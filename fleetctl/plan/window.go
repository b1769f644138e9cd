package plan

import (
	"cmp"
	"slices"
	"sort"
	"time"
)

// span is a stretch of time, in nanoseconds since 1970, without its end.
type span struct{ from, to int64 }

// calendar is when planned rotations of a region may begin.
type calendar struct {
	always  bool
	spans   []span  // apart from each other, rising
	before  []int64 // open time before each span
	black   []span  // blackouts, of which spans have nothing left
	names   []string
	horizon span // outside of it nothing is known: closed
	zone    *time.Location
}

// moment is when the clocks of a zone show a minute of a day. A minute that does not exist (spring) is the moment of the jump; of one that
// is there twice (autumn) the first or the last is asked for.
func moment(zone *time.Location, year int, month time.Month, day, minute int, last bool) time.Time {
	const widest = 16 * time.Hour // no zone is further from UTC
	wall := time.Date(year, month, day, 0, minute, 0, 0, time.UTC)
	var found, jump time.Time
	for at := wall.Add(-widest).In(zone); ; {
		_, offset := at.Zone()
		start, end := at.ZoneBounds()
		c := wall.Add(-time.Duration(offset) * time.Second)
		if (start.IsZero() || !c.Before(start)) && (end.IsZero() || c.Before(end)) {
			if found.IsZero() || last {
				found = c
			}
		}
		if end.IsZero() || end.After(wall.Add(widest)) {
			break
		}
		if !c.Before(end) {
			jump = end // the clock had not come so far when it was set; if no later stretch shows it either, none does
		}
		at = end.In(zone)
	}
	if found.IsZero() {
		found = jump
	}
	return found.UTC()
}

// days are the stretches of one window between two moments.
func (w Window) days(zone *time.Location, from, to time.Time) []span {
	var all []span
	first := from.In(zone).AddDate(0, 0, -2)
	d := time.Date(first.Year(), first.Month(), first.Day(), 0, 0, 0, 0, time.UTC)
	for ; d.Before(to.Add(48 * time.Hour)); d = d.AddDate(0, 0, 1) {
		if !slices.Contains(w.Days, d.Weekday()) {
			continue
		}
		x := span{
			moment(zone, d.Year(), d.Month(), d.Day(), w.From, false).UnixNano(),
			moment(zone, d.Year(), d.Month(), d.Day(), w.To, true).UnixNano(),
		}
		if x.from < x.to && x.to > from.UnixNano() && x.from < to.UnixNano() {
			all = append(all, x)
		}
	}
	return all
}

// of reports whether a rule that names regions is for this one.
func of(regions []string, region string) bool {
	return len(regions) == 0 || slices.Contains(regions, region)
}

// calendars are those of the regions, in their order. Regions with the same windows and blackouts share one.
func calendars(s Snapshot, r Rules, from, to time.Time) []*calendar {
	stretches := make([][]span, len(r.Windows))
	zones := make([]*time.Location, len(r.Windows))
	for i, w := range r.Windows {
		zones[i] = s.Zones[w.Zone]
		if w.Zone == "" || w.Zone == "UTC" {
			zones[i] = time.UTC
		}
		if zones[i] != nil {
			stretches[i] = w.days(zones[i], from, to)
		}
	}
	known := map[string]*calendar{}
	all := make([]*calendar, len(s.Regions))
	for i, g := range s.Regions {
		key := make([]byte, 0, len(r.Windows)+len(r.Blackouts))
		for _, w := range r.Windows {
			key = append(key, bit(of(w.Regions, g.Name)))
		}
		for _, b := range r.Blackouts {
			key = append(key, bit(of(b.Regions, g.Name)))
		}
		c := known[string(key)]
		if c == nil {
			c = &calendar{horizon: span{from.UnixNano(), to.UnixNano()}, zone: time.UTC}
			windowed := false
			for k := range r.Windows {
				if key[k] == '1' && !guardOff("window") {
					windowed = true
					c.spans = append(c.spans, stretches[k]...)
					if zones[k] != nil {
						c.zone = zones[k]
					}
				}
			}
			for k, b := range r.Blackouts {
				if key[len(r.Windows)+k] == '1' && b.From.Before(to) && b.To.After(from) && !guardOff("blackout") {
					c.black = append(c.black, span{b.From.UnixNano(), b.To.UnixNano()})
					c.names = append(c.names, b.Name)
				}
			}
			c.always = !windowed && len(c.black) == 0
			if !windowed {
				c.spans = []span{c.horizon}
			}
			c.finish()
			known[string(key)] = c
		}
		all[i] = c
	}
	return all
}

func bit(b bool) byte {
	if b {
		return '1'
	}
	return '0'
}

// finish joins spans that touch, takes the blackouts out, and sums.
func (c *calendar) finish() {
	slices.SortFunc(c.spans, func(a, b span) int { return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to)) })
	var joined []span
	for _, x := range c.spans {
		if n := len(joined); n > 0 && x.from <= joined[n-1].to {
			joined[n-1].to = max(joined[n-1].to, x.to)
			continue
		}
		joined = append(joined, x)
	}
	for _, b := range c.black {
		var left []span
		for _, x := range joined {
			if x.to <= b.from || b.to <= x.from {
				left = append(left, x)
				continue
			}
			if x.from < b.from {
				left = append(left, span{x.from, b.from})
			}
			if b.to < x.to {
				left = append(left, span{b.to, x.to})
			}
		}
		joined = left
	}
	c.spans, c.before = joined, make([]int64, len(joined))
	sum := int64(0)
	for i, x := range joined {
		c.before[i] = sum
		sum += x.to - x.from
	}
}

// at is the index of the first span that ends after t.
func (c *calendar) at(t int64) int {
	return sort.Search(len(c.spans), func(i int) bool { return c.spans[i].to > t })
}

func (c *calendar) open(t int64) bool {
	if c.always {
		return true
	}
	i := c.at(t)
	return i < len(c.spans) && c.spans[i].from <= t
}

// opens is when rotations may begin next, at t or after; never: the end of the horizon.
func (c *calendar) opens(t int64) int64 {
	if c.always {
		return t
	}
	if i := c.at(t); i < len(c.spans) {
		return max(t, c.spans[i].from)
	}
	return max(t, c.horizon.to)
}

// upTo is the open time before t.
func (c *calendar) upTo(t int64) int64 {
	i := c.at(t)
	if i == len(c.spans) {
		if i == 0 {
			return 0
		}
		return c.before[i-1] + c.spans[i-1].to - c.spans[i-1].from
	}
	return c.before[i] + max(0, t-c.spans[i].from)
}

// between is the open time from one moment to another.
func (c *calendar) between(from, to int64) int64 {
	if c.always {
		return max(0, to-from)
	}
	if to <= from {
		return 0
	}
	return c.upTo(to) - c.upTo(from)
}

// back is the latest moment from which so much open time is left before t; at the earliest the horizon's beginning.
func (c *calendar) back(t, open int64) int64 {
	if c.always {
		return t - open
	}
	want := c.upTo(t) - open
	if want < 0 {
		return c.horizon.from
	}
	// The last span with no more than want before it: within it, want is reached at its beginning or after.
	i := sort.Search(len(c.before), func(i int) bool { return c.before[i] > want }) - 1
	if i < 0 {
		return min(t, c.horizon.from)
	}
	return min(t, c.spans[i].from+want-c.before[i])
}

// blackout names the blackout at a moment, "" for none.
func (c *calendar) blackout(t int64) string {
	for i, b := range c.black {
		if b.from <= t && t < b.to {
			return c.names[i]
		}
	}
	return ""
}

// least is the least open time of any stretch of this length that begins in a span of time, and when that begins.
func (c *calendar) least(from, to, length int64) (open, at int64) {
	if c.always {
		return length, from
	}
	open, at = c.between(from, from+length), from
	try := func(t int64) {
		if t >= from && t <= to {
			if o := c.between(t, t+length); o < open {
				open, at = o, t
			}
		}
	}
	for _, x := range c.spans {
		try(x.to)
		try(x.from - length)
	}
	return open, at
}

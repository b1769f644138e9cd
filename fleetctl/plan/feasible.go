package plan

import (
	"fmt"
	"time"
)

// Proof is the arithmetic by which rules hold, a line each.
type Proof []Line

// Line is one sum.
type Line struct {
	Scope string `json:"scope"` // "region" or "role" (its floor), or "age"
	Name  string `json:"name,omitempty"`
	Sum   string `json:"sum"`
}

// How far a check looks.
const (
	week = 8 * 24 * time.Hour // and the day on which a clock changes
	year = 366 * 24 * time.Hour
)

// Check proves that the rules can be kept by a fleet in which every server serves, or says why not and what would mend it. It looks ahead
// over a week and every blackout, a year at most.
func Check(s Snapshot, r Rules, now time.Time) (Proof, Refusals) {
	sh, refused := measure(s, r)
	if len(refused) > 0 {
		return nil, refused
	}
	ahead := 2 * r.MaxAge
	if len(r.Windows) > 0 {
		ahead = max(ahead, week+r.MaxAge) // every day of the week
	}
	for _, b := range r.Blackouts {
		ahead = max(ahead, min(b.To.Sub(now), year))
	}
	sh.calendars, sh.far = calendars(s, r, now.Add(-24*time.Hour), now.Add(ahead+r.MaxAge)), now.Add(ahead).UnixNano()
	proof, refused := sh.check(now, ahead)
	const most = 3 // of a hundred regions with the same fault, a few say what mends it
	for i := range refused[:min(len(refused), most)] {
		refused[i].Change = sh.mends(refused[i], now, ahead)
	}
	return proof, refused
}

// check does the arithmetic of every region.
func (sh *shape) check(now time.Time, ahead time.Duration) (Proof, Refusals) {
	var proof Proof
	var refused Refusals
	for g := range sh.regions {
		p, r := sh.checkRegion(g, now, ahead)
		proof, refused = append(proof, p...), append(refused, r...)
	}
	refused.sort()
	return proof, refused
}

// checkRegion does the arithmetic of one region: floors first, then ages, then windows.
func (sh *shape) checkRegion(g int, now time.Time, ahead time.Duration) (Proof, Refusals) {
	var proof Proof
	var refused Refusals
	name := sh.s.Regions[g].Name
	for _, p := range append([]int32{int32(g)}, sh.regions[g].roles...) {
		q, z := sh.pools[p], sh.sizes[p]
		of := "region " + name
		if q.role != "" {
			of += ", role " + q.role
		}
		if z.servers == 0 && q.role == "" {
			continue // nothing to take out; the inventory refuses a floor that nobody keeps
		}
		if q.total < q.floor { // spares come only while others are out
			refused = append(refused, Refusal{Code: FloorImpossible, Region: name, Detail: fmt.Sprintf(
				"%s: its servers have %d in all, under the floor of %d", of, q.total, q.floor)})
			continue
		}
		if z.servers == 0 {
			continue
		}
		surge, with := int64(0), ""
		if q.role == "" {
			surge = sh.surge(g)
		}
		if surge > 0 {
			with = fmt.Sprintf(" + %d of spares", surge)
		}
		left := q.total + surge - z.biggest
		if left < q.floor {
			refused = append(refused, Refusal{Code: FloorImpossible, Region: name, Detail: fmt.Sprintf(
				"%s: capacity %d%s - %d (%s) = %d, under the floor of %d: %s could never be rebuilt",
				of, q.total, with, z.biggest, z.name, left, q.floor, z.name)})
			continue
		}
		scope := "region"
		if q.role != "" {
			scope = "role"
		}
		proof = append(proof, Line{scope, name, fmt.Sprintf("%s: capacity %d%s - %d (%s) = %d, floor %d", of, q.total, with, z.biggest, z.name, left, q.floor)})
	}
	if len(refused) > 0 {
		return proof, refused
	}
	w, half := sh.work(g), sh.r.MaxAge/2
	if w.all == 0 {
		return proof, nil
	}
	sum, caps := sh.sum(g, w), 0
	for _, n := range w.caps {
		caps += n
		if len(sh.r.Train.Steps) > 0 {
			caps += n
		}
	}
	no := func(code, format string, args ...any) {
		refused = append(refused, Refusal{Code: code, Region: name, Detail: sum + fmt.Sprintf(format, args...)})
	}
	switch without := w.hard - time.Duration(caps)*sh.r.Turn(); {
	case w.hard > half && without <= half:
		no(CapImpossible, ", more than half of max_age %v", sh.r.MaxAge)
	case w.hard > half:
		no(AgeImpossible, ", more than half of max_age %v", sh.r.MaxAge)
	case w.hard+w.rate > half:
		no(RateImpossible, " + %d servers / %d an hour = %v, more than half of max_age %v", len(sh.nodes), sh.r.MaxPerHour, w.hard+w.rate, sh.r.MaxAge)
	default:
		c := sh.calendars[g]
		open, at := c.least(now.UnixNano(), now.Add(ahead).UnixNano(), int64(half))
		rate := ""
		if w.rate > 0 {
			rate = fmt.Sprintf(" + %d servers / %d an hour = %v", len(sh.nodes), sh.r.MaxPerHour, w.hard+w.rate)
		}
		where := ""
		if !c.always {
			from := time.Unix(0, at)
			where = fmt.Sprintf("; windows are open for %s of the half of max_age from %s (%s)", inWords(open),
				from.In(c.zone).Format("2006-01-02 15:04 MST"), from.UTC().Format("2006-01-02 15:04 UTC"))
		}
		sh.regions[g].reach = 0
		if time.Duration(open) < w.hard+w.rate {
			age := sh.r.MaxAge - sh.r.Bake // a life's least length from one leaving to the next deadline
			least, at := c.least(now.UnixNano(), sh.far, int64(age))
			whole := fmt.Sprintf(", and for %s of the %v from %s, of which half counts", inWords(least), age, time.Unix(0, at).UTC().Format("2006-01-02 15:04 UTC"))
			if time.Duration(least/2) < w.hard+w.rate {
				no(WindowImpossible, "%s%s%s", rate, where, whole)
				break
			}
			sh.regions[g].reach = least / 2
			proof = append(proof, Line{"age", name, sum + rate + where + whole})
			break
		}
		proof = append(proof, Line{"age", name, sum + rate + fmt.Sprintf(", half of max_age %v is %v", sh.r.MaxAge, half) + where})
	}
	return proof, refused
}

package plan

import (
	"cmp"
	"slices"
	"time"
)

// Warning is a server whose deadline is in danger.
type Warning struct {
	Server   string    `json:"server"`
	Region   string    `json:"region"`
	Deadline time.Time `json:"deadline"`
	Left     int64     `json:"left_seconds"` // until its deadline; negative: it has passed
	Reason   Reason    `json:"reason"`       // what holds it
	Why      string    `json:"why"`
}

// Danger names servers that may end themselves before they are rebuilt: they serve, do not go now, and are nearer to their deadline than alert;
// the nearest first. An alert of 0 is half of what the region keeps for waiting, so that most of its lead has been used in vain. Where the
// rules cannot be kept at all, every server that near is named.
func Danger(s Snapshot, r Rules, h Health, now time.Time, alert time.Duration) []Warning {
	p, e, refused := makePlan(s, r, h, now)
	var all []Warning
	warn := func(x Step, limit time.Duration) {
		if left := x.Deadline.Sub(now); left < limit {
			all = append(all, Warning{x.Server, x.Region, x.Deadline, int64(left / time.Second), x.Reason, x.Why})
		}
	}
	if len(refused) > 0 {
		limit := alert
		if limit == 0 {
			limit = r.MaxAge * EarlyPercent / 200
		}
		for _, x := range s.Servers {
			if serves(x) {
				warn(Step{Server: x.Name, Region: x.Region, Deadline: x.Deadline, Reason: Reason(refused[0].Code), Why: refused[0].Detail}, limit)
			}
		}
	} else {
		places := map[string]*place{}
		for g := range s.Regions {
			places[s.Regions[g].Name] = &e.places[g]
		}
		for _, x := range p.Steps {
			limit := alert
			if g := places[x.Region]; limit == 0 && !x.Deadline.IsZero() {
				// The lead is open time: on the clock it is as long as the windows make it.
				d := x.Deadline.UnixNano()
				limit = time.Duration(d-min(g.calendar.back(d, g.lead), d-g.early)) / 2
			}
			if !x.Now && x.State == "serving" && !x.Deadline.IsZero() {
				warn(x, limit)
			}
		}
	}
	slices.SortFunc(all, func(a, b Warning) int { return cmp.Or(a.Deadline.Compare(b.Deadline), cmp.Compare(a.Server, b.Server)) })
	return all
}

func serves(x Server) bool { return x.State == "serving" && !x.Deadline.IsZero() }

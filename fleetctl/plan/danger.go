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

// Danger names servers that may end themselves before they are rebuilt: they serve, and are nearer to their deadline than alert;
// the nearest first, whether something holds them or nobody takes them. An alert of 0 is half of what the region keeps for waiting, so that most of its lead has been used in vain. Where the
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
			if x.State != "serving" || x.Deadline.IsZero() || x.Reason == Lost || x.Reason == Revoked {
				continue
			}
			if x.Now {
				x.Why = "it would go now, and nobody has taken it: does anybody rotate? (" + x.Why + ")"
			}
			warn(x, limit)
		}
	}
	slices.SortFunc(all, func(a, b Warning) int { return cmp.Or(a.Deadline.Compare(b.Deadline), cmp.Compare(a.Server, b.Server)) })
	return all
}

// Totals are the regions' capacities where the rules are refused, so that there is no plan to read them from.
func Totals(s Snapshot, r Rules, h Health, now time.Time) []RegionTotals {
	all := make([]RegionTotals, len(s.Regions))
	at := map[string]*RegionTotals{}
	for i, g := range s.Regions {
		all[i] = RegionTotals{Name: g.Name, Floor: g.Floor}
		for _, f := range r.Floors {
			if f.Role == "" && (f.Region == "" || f.Region == g.Name) {
				all[i].Floor = max(all[i].Floor, f.Mbps)
			}
		}
		at[g.Name] = &all[i]
	}
	for _, x := range s.Servers {
		t := at[x.Region]
		if t == nil || x.Internal {
			continue
		}
		if !x.Spare {
			t.Capacity += x.Capacity
		}
		if x.Serves(h, now) {
			t.Serving += x.Capacity
		}
	}
	return all
}

func serves(x Server) bool { return x.State == "serving" && !x.Deadline.IsZero() }

package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Refusal says why rules cannot be kept, with the numbers.
type Refusal struct {
	Code   string `json:"code"`
	Region string `json:"region,omitempty"`
	Detail string `json:"detail"`
	Change string `json:"change,omitempty"` // the smallest single change that makes the rules feasible, as far as one was found
}

// Codes of refusals.
const (
	RulesMalformed   = "rules_malformed"   // a limit is missing or negative
	FloorImpossible  = "floor_impossible"  // some server could never leave
	AgeImpossible    = "age_impossible"    // a whole cycle takes longer than the age allows
	CapImpossible    = "cap_impossible"    // the servers of a domain take longer than the age allows, so few at a time
	WindowImpossible = "window_impossible" // the windows are not open for long enough
	RateImpossible   = "rate_impossible"   // max_per_hour lets too few leave
	ReleaseBad       = "release_bad"       // the release in use is marked bad, and none is marked good
)

// Refusals are every reason why nothing may be touched. Empty: none.
type Refusals []Refusal

func (r Refusals) Error() string {
	var b strings.Builder
	for i, x := range r {
		if i > 0 {
			b.WriteString("; ")
		}
		fmt.Fprintf(&b, "%s: %s", x.Code, x.Detail)
	}
	return b.String()
}

// region is a region while it is being planned.
type region struct {
	Region
	total    int           // capacity of all its servers
	serving  int           // capacity that serves and was heard of
	back     int           // capacity in flight, that returns
	width    int           // servers that may be out at once, at least
	servers  int           // how many it has
	lead     time.Duration // how long before its deadline a server is due
	blocked  string        // name of the head that the rest waits for
	missing  int           // capacity of servers that neither serve nor are in flight
	failures []string      // their names
}

// regions sorts servers into their regions and refuses rules that cannot be kept.
func regions(s Snapshot, r Rules) (map[string]*region, Refusals) {
	var refused Refusals
	if r.MaxAge <= 0 || r.MaxParallel <= 0 || r.DrainLimit < 0 || r.BootLimit <= 0 || r.Bake < 0 || r.Retries < 0 {
		return nil, Refusals{{Code: RulesMalformed, Detail: fmt.Sprintf(
			"max_age %v, max_parallel %d and boot_limit %v must be positive; drain_limit %v, bake %v and retries %d not negative",
			r.MaxAge, r.MaxParallel, r.BootLimit, r.DrainLimit, r.Bake, r.Retries)}}
	}
	all := make(map[string]*region, len(s.Regions))
	for _, x := range s.Regions {
		all[x.Name] = &region{Region: x}
	}
	bastions := 0 // they leave one after another, whatever region they are in
	bastionIn := map[string]bool{}
	largest := map[string]Server{}
	for _, x := range s.Servers {
		g, ok := all[x.Region]
		if !ok {
			refused = append(refused, Refusal{Code: RulesMalformed, Region: x.Region, Detail: fmt.Sprintf("server %s is in region %q, which does not exist", x.Name, x.Region)})
			continue
		}
		g.total += x.Capacity
		g.servers++
		if x.Bastion {
			bastions++
			bastionIn[x.Region] = true
		}
		if l := largest[x.Region]; x.Capacity > l.Capacity || x.Capacity == l.Capacity && (l.Name == "" || x.Name < l.Name) {
			largest[x.Region] = x
		}
	}
	turn := r.Turn()
	fleetRounds := rounds(len(s.Servers), r.MaxParallel)
	for _, g := range all {
		if g.servers == 0 {
			continue
		}
		big := largest[g.Name]
		if g.total-big.Capacity < g.Floor {
			refused = append(refused, Refusal{Code: FloorImpossible, Region: g.Name, Detail: fmt.Sprintf(
				"region %s: capacity %d - %d (%s) = %d, under the floor of %d: %s could never be rebuilt",
				g.Name, g.total, big.Capacity, big.Name, g.total-big.Capacity, g.Floor, big.Name)})
			continue
		}
		g.width = g.servers
		if big.Capacity > 0 {
			g.width = min(g.width, (g.total-g.Floor)/big.Capacity)
		}
		// While a due server waits, either its region has width servers out or the fleet has max_parallel out. Neither can
		// last longer than its number of rounds, so the sum bounds the wait.
		n := rounds(g.servers, g.width) + fleetRounds
		waits := ""
		if bastionIn[g.Name] && bastions > 1 {
			n += bastions - 1
			waits = fmt.Sprintf(" + %d bastions before the last", bastions-1)
		}
		g.lead = time.Duration(n) * turn
		if g.lead > r.MaxAge/2 {
			refused = append(refused, Refusal{Code: AgeImpossible, Region: g.Name, Detail: fmt.Sprintf(
				"region %s: (%d servers / %d at once + %d in the fleet / max_parallel %d%s) = %d rounds of %v (drain %v + %d boots of %v + %v + bake %v) take %v, more than half of max_age %v",
				g.Name, g.servers, g.width, len(s.Servers), r.MaxParallel, waits, n, turn, r.DrainLimit, r.Retries+1, WipeLimit, r.BootLimit, r.Bake, g.lead, r.MaxAge)})
		}
		g.lead = max(g.lead, r.MaxAge*EarlyPercent/100)
	}
	slices.SortFunc(refused, func(a, b Refusal) int {
		return cmp.Or(cmp.Compare(a.Region, b.Region), cmp.Compare(a.Code, b.Code), cmp.Compare(a.Detail, b.Detail))
	})
	return all, refused
}

// rounds is n things, k at a time, rounded up.
func rounds(n, k int) int { return (n + k - 1) / k }

package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Refusal says why rules cannot be kept, with the numbers.
type Refusal struct {
	Code   string `json:"code"`
	Region string `json:"region,omitempty"`
	Detail string `json:"detail"`
	Change string `json:"change,omitempty"` // the smallest single changes, each of which makes the rules feasible, as far as any was found
}

// Codes of refusals.
const (
	RulesMalformed   = "rules_malformed"   // a limit is missing or negative
	FloorImpossible  = "floor_impossible"  // some server could never leave
	AgeImpossible    = "age_impossible"    // a whole cycle takes longer than the age allows
	CapImpossible    = "cap_impossible"    // the servers of a domain take longer than the age allows, so few at a time
	WindowImpossible = "window_impossible" // the windows are not open for long enough
	RateImpossible   = "rate_impossible"   // max_per_hour lets too few leave
	LostServes       = "lost_serves"       // said to be dead, and was heard of as ready just now
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

func (r Refusals) sort() {
	slices.SortFunc(r, func(a, b Refusal) int {
		return cmp.Or(cmp.Compare(a.Region, b.Region), cmp.Compare(a.Code, b.Code), cmp.Compare(a.Detail, b.Detail))
	})
}

// malformed refuses limits that mean nothing.
func malformed(s Snapshot, r Rules) Refusals {
	var refused Refusals
	bad := func(format string, args ...any) {
		refused = append(refused, Refusal{Code: RulesMalformed, Detail: fmt.Sprintf(format, args...)})
	}
	if r.MaxAge <= 0 || r.MaxParallel <= 0 || r.DrainLimit < 0 || r.BootLimit <= 0 || r.Bake < 0 || r.Retries < 0 {
		bad("max_age %v, max_parallel %d and boot_limit %v must be positive; drain_limit %v, bake %v and retries %d not negative",
			r.MaxAge, r.MaxParallel, r.BootLimit, r.DrainLimit, r.Bake, r.Retries)
	}
	if r.MaxPerHour < 0 || r.MaxSpares < 0 {
		bad("max_per_hour %d and max_spares %d must not be negative", r.MaxPerHour, r.MaxSpares)
	}
	for _, c := range r.Caps {
		if !slices.Contains(kinds[:], c.Domain) || c.Max < 1 {
			bad("a cap of %d for %q: at least 1, for rack, switch, bmc or mirror", c.Max, c.Domain)
		}
	}
	for _, w := range r.Windows {
		if w.From < 0 || w.From >= w.To || w.To > 24*60 || len(w.Days) == 0 {
			bad("a window from minute %d to %d on %d days: it ends after it begins, on the same day, on some day", w.From, w.To, len(w.Days))
		}
	}
	for _, b := range r.Blackouts {
		if !b.From.Before(b.To) {
			bad("blackout %q ends before it begins", b.Name)
		}
	}
	if t := r.Train; len(t.Steps) > 0 {
		if !slices.IsSorted(t.Steps) || t.Steps[0] < 1 || t.Steps[len(t.Steps)-1] != 100 || t.Canaries < 0 || t.Bake < 0 ||
			t.MaxErrors < 0 || t.MaxErrors > 0.5 || t.Confidence < 0 || t.Confidence >= 1 {
			bad("a train of %d canaries, steps %v, bake %v, max_errors %v, confidence %v: steps rise from 1 to 100, errors are 0 to 0.5, confidence is under 1",
				t.Canaries, t.Steps, t.Bake, t.MaxErrors, t.Confidence)
		}
	}
	switch r.Mode {
	case Scheduled, Everyone, Upgrade, Emergency, Single:
	default:
		bad("no mode %q", r.Mode)
	}
	if s.Release != 0 && s.boots() == 0 {
		refused = append(refused, Refusal{Code: ReleaseBad, Detail: fmt.Sprintf("release %d is marked bad, and none is marked good: nothing to boot", s.Release)})
	}
	return refused
}

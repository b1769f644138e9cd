package ledger

import (
	"testing"
	"time"
)

// The signer's clock is held against what others know: a life that is dated ahead would outlive its day, and one that is dated back would be
// over before anybody saw it.
func TestSeen(t *testing.T) {
	p1 := policy(t, 1, nil)
	ahead := 29 * 24 * time.Hour
	check := func(shift time.Duration, change func(*Rules)) Report {
		b := &book{t: t, at: start}
		b.trust(p1)
		h := b.good(1)
		b.at = start.Add(shift)
		b.life("vpn1", 1, 1, h, nil)
		rules := Rules{Policies: Policies{p1.Sum(): p1}}
		change(&rules)
		c := New(rules)
		for i, text := range b.entries {
			c.Add(uint64(i), text)
		}
		return c.Report(start)
	}
	reasons := func(r Report) map[string]bool {
		all := map[string]bool{}
		for _, v := range r.Violations {
			all[v.Reason] = true
		}
		return all
	}
	for _, tt := range []struct {
		name   string
		shift  time.Duration
		change func(*Rules)
		want   string
	}{
		{"nobody else knows", ahead, func(*Rules) {}, ""},
		{"ahead of now", ahead, func(r *Rules) { r.Now = start.Add(time.Hour) }, TimeAhead},
		{"ahead of the witnesses", ahead, func(r *Rules) { r.Now, r.Seen = start.Add(2*ahead), []Seen{{100, start.Add(time.Hour)}} }, TimeAhead},
		{"behind what they saw", ahead, func(r *Rules) { r.Now, r.Seen = start.Add(2*ahead), []Seen{{2, start.Add(time.Hour)}} }, ""},
		{"dated back", time.Minute, func(r *Rules) { r.Unseen = []Seen{{2, start.Add(24 * time.Hour)}} }, TimeLate},
		{"in its time", time.Minute, func(r *Rules) { r.Now, r.Unseen = start.Add(time.Hour), []Seen{{2, start.Add(10 * time.Minute)}} }, ""},
	} {
		got := reasons(check(tt.shift, tt.change))
		if tt.want == "" && (got[TimeAhead] || got[TimeLate]) || tt.want != "" && !got[tt.want] {
			t.Errorf("%s: got %v, want %q", tt.name, got, tt.want)
		}
	}
}

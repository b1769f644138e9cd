package rotate

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"mayfly/fleetctl/plan"
	"mayfly/inventory"
	"mayfly/inventory/store"
	"mayfly/rebuild/power"
)

// Implementation constants of patience with BMCs, which restart too.
const (
	restPolls   = 32 // the first rest lasts this many polls, about 5 s; each further one twice as long
	maxRests    = 10 // from then on they are equal
	statusTries = 4  // how often a machine is asked before its silence counts

	powerRow  = 3                // so many ends in a row for want of power over a machine are no machine's own
	powerHold = 10 * time.Minute // after the last of them nothing leaves for so long
)

// powerless says why nothing may leave when the newest rotations all ended in quarantine because nobody had power over the machines: their network is
// out, and whoever leaves now does not come back. "" where it is not so.
func powerless(servers []store.Server, now time.Time) string {
	var ends []store.Server
	for _, s := range servers {
		if s.State == inventory.Serving || s.State == inventory.Quarantined {
			ends = append(ends, s)
		}
	}
	slices.SortFunc(ends, func(a, b store.Server) int { return b.Since.Compare(a.Since) })
	if len(ends) < powerRow || now.Sub(ends[0].Since) > powerHold {
		return ""
	}
	for _, s := range ends[:powerRow] {
		if s.State != inventory.Quarantined || !strings.HasPrefix(s.Cause, string(CheckPower)+": ") {
			return ""
		}
	}
	return fmt.Sprintf("the last %d rotations all ended for want of power over the machine, the newest %s: %s", powerRow, ends[0].Name, ends[0].Cause)
}

// rest waits before a thing that failed for the nth time is tried again: boot_limit at most, and not beyond ctx.
func (l *life) rest(ctx context.Context, n int) error {
	pause := time.NewTimer(min(restPolls*l.Poll<<min(max(n-1, 0), maxRests), l.rules.BootLimit))
	defer pause.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-pause.C:
		return nil
	}
}

// surely reads whether the machine runs, where one answer that does not come would cost a life.
func (l *life) surely(ctx context.Context) (power.Status, error) {
	for n := 1; ; n++ {
		got, err := l.status(ctx)
		if err == nil || n >= statusTries {
			return got, err
		}
		if err := l.rest(ctx, n); err != nil {
			return got, err
		}
	}
}

// silence tells a server that says nothing from a controller that hears nobody.
type silence struct {
	until time.Time // it is not the server's before
}

// end is when a server's silence counts. mine is when it was heard last, others when anybody else was. Who was not heard while others were is
// silent; when nobody was, `fleetctl serve` may be down, and everybody gets the time to come back to it. That ends with limit.
func (x *silence) end(mine, others, now time.Time, limit time.Duration) time.Time {
	last := mine.Add(plan.FreshFor)
	if !others.After(last) {
		x.until = now.Add(plan.FreshFor)
		if end := mine.Add(max(limit, plan.FreshFor)); end.Before(x.until) {
			x.until = end
		}
	}
	return x.until
}

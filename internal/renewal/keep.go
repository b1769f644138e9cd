package renewal

import (
	"context"
	"math/rand/v2"
	"time"
)

// Implementation constants of keeping a certificate young.
const (
	firstPause = 2 * time.Second
	maxPause   = time.Minute
	leastWait  = 5 * time.Second // between two successes, whatever the certificate says
)

// Due is when a certificate that was got at got and ends at end is renewed: half-way.
func Due(got, end time.Time) time.Time {
	half := got.Add(end.Sub(got) / 2)
	if least := got.Add(leastWait); half.Before(least) {
		return least
	}
	return half
}

// Keep renews until ctx ends: at once, unless due is later, then whenever half of what renew returned has passed. After a failure it
// tries again, soon at first and once a minute at most; failed hears of each.
func Keep(ctx context.Context, due time.Time, renew func(context.Context) (end time.Time, err error), failed func(err error, pause time.Duration)) {
	pause := firstPause
	wait := time.Until(due)
	for sleep(ctx, wait) {
		end, err := renew(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			wait = jitter(pause)
			failed(err, wait)
			pause = min(2*pause, maxPause)
			continue
		}
		pause = firstPause
		now := time.Now()
		wait = Due(now, end).Sub(now)
	}
}

// jitter spreads those who failed together: between three quarters and five quarters of d.
func jitter(d time.Duration) time.Duration { return d*3/4 + rand.N(d/2+1) }

// sleep returns false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return ctx.Err() == nil
	}
}

package ledger

import (
	"errors"
	"time"

	"mayfly/policies/ledger"
	"mayfly/rebuild/release"
)

// life is a server's latest.
type life struct {
	ledger.Begin
	index    uint64
	ended    bool
	extended int // how often
}

func (c *Checker) begin(index uint64, at time.Time, b ledger.Begin) {
	wrong := func(reason, format string, args ...any) { c.wrong(index, reason, b.Server, format, args...) }
	c.report.Lives++
	switch b.Evidence {
	case ledger.Attested:
		c.report.Attested++
	case ledger.Claimed:
		c.report.Claimed++
	default:
		c.report.Unverified++
	}
	if c.rules.Attested && b.Evidence != ledger.Attested {
		wrong(LifeEvidence, "life %d is %s", b.Epoch, b.Evidence)
	}
	c.under(index, at, b)
	if b.Began.After(at.Add(clockSlack)) || at.Sub(b.Began) > maxWait || !at.Before(b.Deadline) {
		wrong(LifeTime, "life %d from %s to %s, logged at %s", b.Epoch, b.Began.Format(time.RFC3339), b.Deadline.Format(time.RFC3339), at.Format(time.RFC3339))
	}
	if old := c.lives[b.Server]; old != nil {
		switch {
		case b.Epoch < old.Epoch || b.Epoch == old.Epoch && !old.ended:
			wrong(EpochNotRising, "life %d follows life %d", b.Epoch, old.Epoch)
		case !old.ended && at.Before(old.Deadline):
			wrong(LivesOverlap, "life %d begins, and nobody has said that life %d is over, which may run until %s", b.Epoch, old.Epoch, old.Deadline.Format(time.RFC3339))
		}
	}
	c.lives[b.Server] = &life{Begin: b, index: index}
	c.report.longest(b.Deadline.Sub(b.Began))
}

// under checks a life against its release.
func (c *Checker) under(index uint64, at time.Time, b ledger.Begin) {
	wrong := func(reason, format string, args ...any) { c.wrong(index, reason, b.Server, format, args...) }
	most := c.rules.MaxAge
	s, ok := c.byHash[b.ReleaseSHA256]
	if !ok || s.Version != b.Release {
		wrong(ReleaseUnlogged, "life %d runs release %d with SHA-256 %s, which is not in the ledger before it", b.Epoch, b.Release, b.ReleaseSHA256)
	} else {
		if age := time.Duration(s.MaxAge) * time.Second; most == 0 || age < most {
			most = age
		}
		switch {
		case s.Version < c.least:
			wrong(ReleaseFrozen, "life %d runs release %d, and the oldest that may boot is %d", b.Epoch, s.Version, c.least)
		case c.policy != nil && s.Version < c.policy.MinRelease:
			wrong(release.Older, "life %d runs release %d, and the oldest that the trust policy lets boot is %d", b.Epoch, s.Version, c.policy.MinRelease)
		}
		if refused, ok := errors.AsType[*release.Refusal](s.At(at)); ok {
			wrong(refused.Reason, "life %d runs release %d: %v", b.Epoch, s.Version, refused.Err)
		}
	}
	if age := b.Deadline.Sub(b.Began); most > 0 && age > most {
		wrong(LifeTooLong, "life %d may run for %s, %s is the longest", b.Epoch, age, most)
	}
}

func (c *Checker) end(index uint64, at time.Time, e ledger.End) {
	old := c.lives[e.Server]
	if old == nil || old.Epoch != e.Epoch || old.ended {
		c.wrong(index, EndUnknown, e.Server, "life %d is not running", e.Epoch)
		return
	}
	old.ended = true
	c.report.Ends++
	switch {
	case e.Ended.After(old.Deadline):
		c.wrong(index, LifeTooLong, e.Server, "life %d was over at %s, its deadline was %s", e.Epoch, e.Ended.Format(time.RFC3339), old.Deadline.Format(time.RFC3339))
	case e.Ended.Before(old.Began) || e.Ended.After(at.Add(clockSlack)):
		c.wrong(index, LifeTime, e.Server, "life %d began at %s and was over at %s, logged at %s", e.Epoch, old.Began.Format(time.RFC3339), e.Ended.Format(time.RFC3339), at.Format(time.RFC3339))
	}
}

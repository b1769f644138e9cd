package ledger

import (
	"time"

	"mayfly/policies/ledger"
	"mayfly/rebuild/extension"
)

// extend lets a life go on beyond its deadline where approvers of the trust policy in force signed that, within the bounds that the server and
// the signer keep as well. A life that does so is longer than its release allows by their word, and shows as that.
func (c *Checker) extend(index uint64, at time.Time, x ledger.Extend) {
	wrong := func(format string, args ...any) { c.wrong(index, LifeExtended, x.Server, format, args...) }
	old := c.lives[x.Server]
	if old == nil || old.Epoch != x.Epoch || old.ended || !at.Before(old.Deadline.Add(clockSlack)) {
		wrong("life %d is not running", x.Epoch)
		return
	}
	e, _, err := extension.Open(c.policy, []byte(x.Statement), []byte(x.Signatures), x.Server, x.Epoch, at)
	if err != nil {
		wrong("life %d: %v", x.Epoch, err)
		return
	}
	if !e.Until.Equal(x.Deadline) {
		wrong("life %d goes on until %s, and approvers signed %s", x.Epoch, x.Deadline.Format(time.RFC3339), e.Until.Format(time.RFC3339))
		return
	}
	l, err := extension.Life{Began: old.Began, Ends: old.Deadline, Times: old.extended}.Extend(e)
	if err != nil {
		wrong("life %d: %v", x.Epoch, err)
		return
	}
	old.Deadline, old.extended = l.Ends, l.Times
	c.report.Extended++
	c.report.longest(old.Deadline.Sub(old.Began))
}

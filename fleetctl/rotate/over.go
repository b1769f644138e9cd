package rotate

import (
	"context"
	"time"

	"mayfly/inventory/store"
	"mayfly/policies/ledger"
)

// Ledger is told when a server's life is over.
type Ledger interface {
	// End says so of the server's life, if it is this one or an earlier one.
	End(ctx context.Context, server string, through uint64, reason string) (logged bool, err error)
}

// overLimit is how long the ledger's writer may take.
const overLimit = 15 * time.Second

// over tells the public ledger that the lives up to this one are over: the machine was read back as off. One that is not told keeps nobody from
// going on: the signer notes the end when the next life begins, and without that the deadline stands.
func (l *life) over(ctx context.Context, s store.Server, through uint64) error {
	if l.Ledger == nil || through == 0 {
		return nil
	}
	last := s
	last.Epoch = through
	_, n, err := l.failures(ctx, last)
	if err != nil {
		return err
	}
	reason := ledger.Rotated
	if n.ofLife > 0 {
		reason = ledger.Failed
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), overLimit)
	defer cancel()
	if _, err := l.Ledger.End(ctx, s.Name, through, reason); err != nil {
		l.sayf("%s: the end of life %d is not in the ledger yet: %v", s.Name, through, err)
	}
	return nil
}

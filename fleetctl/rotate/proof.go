package rotate

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"mayfly/inventory"
	"mayfly/inventory/store"
	"mayfly/policies/ledger"
)

// proof says how a life's machine proved that it was started anew, or "" where it did not. entries are the server's journal.
func proof(entries []store.Entry, s store.Server) string {
	var last string // the boot before this one
	off := false
	for _, e := range entries {
		switch {
		case e.Step == stepEnd && e.Outcome == Done && e.Epoch < s.Epoch:
			last = e.Detail
		case e.Step == "off" && e.Outcome == Done && e.Epoch == s.Epoch && e.Detail == readBackOff:
			off = true
		}
	}
	switch {
	case s.BootID == "" || s.BootID == last: // what never came, or never went
		return ""
	case s.Evidence == ledger.Attested:
		return "quote: its TPM was reset since the last life, by its quote"
	case off:
		return "power: read back as off, and then on in life " + strconv.FormatUint(s.Epoch, 10)
	}
	return fmt.Sprintf("boot: another boot ID than the life before, which joined with the ticket of life %d", s.Epoch)
}

// restarted fails a life whose machine did not prove that it was started anew.
func (l *life) restarted(ctx context.Context, s store.Server) error {
	entries, err := l.Store.Journal(ctx, s.Name)
	if err != nil {
		return err
	}
	l.known.joined, l.known.evidence = true, s.Evidence
	if proof(entries, s) == "" {
		return &failure{CheckAttest, "not_restarted", fmt.Sprintf("life %d shows the boot ID of the life before: the machine was never off", s.Epoch)}
	}
	return nil
}

// endRotation records how a rotation ended, once for a server and epoch. What has ended before stands.
func (r *Runner) endRotation(ctx context.Context, to store.Store, s store.Server) (store.Outcome, error) {
	entries, err := to.Journal(ctx, s.Name)
	if err != nil {
		return store.Outcome{}, err
	}
	o := store.Outcome{Server: s.Name, Epoch: s.Epoch, Run: r.run, Release: s.Release, Served: s.State == inventory.Serving, At: time.Now()}
	for _, e := range entries {
		if e.Run == r.run && e.Step == "attempt" && e.Outcome == Failed && ofRelease(e.Detail) {
			o.Failed++
		}
	}
	o.Attempts = o.Failed
	if o.Served {
		o.Attempts++
		o.Reason = proof(entries, s)
		o.Restarted = o.Reason != ""
	} else {
		o.Reason = s.Cause
	}
	r.at("end-rotation")
	if err := to.EndRotation(ctx, o); err != nil && !errors.Is(err, store.ErrEnded) {
		return o, err
	}
	r.at("rotation-ended")
	return o, nil
}

// ofRelease reports whether a failed attempt says something about the release: what failed was reached after the machine was switched on. A BMC that lies, hangs or
// is not there fails with every release, and shall stop no train.
func ofRelease(cause string) bool { return !strings.HasPrefix(cause, string(CheckPower)+": ") }

// rebuilt is what people are told of a rotation that has ended.
func rebuilt(s store.Server, o store.Outcome) Rebuilt {
	b := Rebuilt{Name: s.Name, State: s.State, Epoch: s.Epoch, Release: s.Release, Cause: s.Cause, Attempts: o.Attempts, Outcome: "quarantined"}
	switch s.State {
	case inventory.Serving:
		b.Outcome, b.Restarted = "served", o.Reason
	case inventory.Standby:
		b.Outcome = "stands by"
	}
	return b
}

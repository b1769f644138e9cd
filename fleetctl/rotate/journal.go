package rotate

import (
	"context"
	"time"

	"mayfly/inventory/store"
)

// Outcomes of a journal record.
const (
	Intent = "intent" // written before the effect
	Done   = "done"   // written after it
	Failed = "failed"
)

// Steps of the journal that are no effect on a machine.
const (
	stepEnd     = "end"     // done, before a life ends: the ID of its boot
	stepWatch   = "watch"   // intent: a process begins to wait for a boot
	stepStandby = "standby" // intent, before a spare leaves: it is not booted again until it is needed
)

// readBackOff is what the record of an "off" says that was read back.
const readBackOff = "read back as off"

// effect does something to the world, between its intent and its outcome. It is not cut short by Ctrl-C, for the next safe
// point is after it, but by the end of the claim. The intent is written through the claim's fence, and right before the effect the claim has to
// last for a while: a process that was stopped in between finds it over.
func (l *life) effect(ctx context.Context, s store.Server, step string, do func(context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx = l.hold.ctx
	if err := l.journal(ctx, s, step, Intent, ""); err != nil {
		return err
	}
	l.at(step + " effect")
	if err := l.hold.sure(); err != nil {
		return err
	}
	l.said = ""
	err := do(ctx)
	l.at(step + " effect over")
	if l.hold.lost() {
		return errLost
	}
	if err != nil {
		if e := l.journal(ctx, s, step, Failed, err.Error()); e != nil {
			return e
		}
		return err
	}
	return l.journal(ctx, s, step, Done, l.said)
}

// ends notes which boot a life was, so that the next one has to be another.
func (l *life) ends(ctx context.Context, s store.Server) error {
	if s.BootID == "" {
		return nil
	}
	return l.journal(ctx, s, stepEnd, Done, s.BootID)
}

func (l *life) journal(ctx context.Context, s store.Server, step, outcome, detail string) error {
	l.at("record " + step + " " + outcome)
	if len(detail) > maxCause {
		detail = detail[:maxCause]
	}
	err := l.Store.Record(ctx, store.Entry{Run: l.run, At: time.Now(), Server: s.Name, Epoch: s.Epoch, Step: step, Outcome: outcome, Detail: detail})
	l.at("recorded " + step + " " + outcome)
	return err
}

// begun reports whether an effect of this life was ever intended, and whether it was seen done.
func (l *life) begun(ctx context.Context, s store.Server, step string) (tried, done bool, err error) {
	entries, err := l.Store.Journal(ctx, s.Name)
	if err != nil {
		return false, false, err
	}
	for _, e := range entries {
		if e.Epoch == s.Epoch && e.Step == step {
			tried = true
			done = done || e.Outcome == Done
		}
	}
	return tried, done, nil
}

// attempts counts failed attempts.
type attempts struct{ all, ofLife int }

// failures returns the first failed attempt of this run and their number, in all and in this life.
func (l *life) failures(ctx context.Context, s store.Server) (first string, n attempts, err error) {
	entries, err := l.Store.Journal(ctx, s.Name)
	if err != nil {
		return "", n, err
	}
	for _, e := range entries {
		if e.Run != l.run || e.Step != "attempt" || e.Outcome != Failed {
			continue
		}
		if n.all == 0 {
			first = e.Detail
		}
		n.all++
		if e.Epoch == s.Epoch {
			n.ofLife++
		}
	}
	return first, n, nil
}

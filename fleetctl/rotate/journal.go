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

// effect does something to the world, between its intent and its outcome. It is not cut short by Ctrl-C: the next safe
// point is after it.
func (l *life) effect(ctx context.Context, s store.Server, step string, do func(context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	if err := l.journal(ctx, s, step, Intent, ""); err != nil {
		return err
	}
	l.at(step + " effect")
	err := do(ctx)
	l.at(step + " effect over")
	if err != nil {
		if e := l.journal(ctx, s, step, Failed, err.Error()); e != nil {
			return e
		}
		return err
	}
	return l.journal(ctx, s, step, Done, "")
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

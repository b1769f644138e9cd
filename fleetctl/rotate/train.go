package rotate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"mayfly/fleetctl/plan"
	"mayfly/inventory/store"
)

// releasesOf are the releases that a plan gives servers.
func releasesOf(p plan.Plan) map[string]uint64 {
	m := make(map[string]uint64, len(p.Steps))
	for _, s := range p.Steps {
		if s.Release != 0 {
			m[s.Server] = s.Release
		}
	}
	return m
}

// standsBy reports whether a spare leaves in order to stand by.
func standsBy(s plan.Step) bool { return s.Standby }

// train acts on what the plan found of the release in use. A release whose gate says stop is marked bad, for good; then, and where people marked it bad
// while the run goes on, nothing more begins in it: the servers that run the release are brought back by the next one. A release is good when its train is
// over, or, where no release was good yet, when the first server serves with it.
func (w *work) train(ctx context.Context, p plan.Plan, known Known) error {
	use := known.Use
	if use.Version == 0 {
		return nil
	}
	if m, bad := known.Bad(use.Version); bad {
		if m.At.After(w.beganAt) {
			w.stop(fmt.Sprintf("release %d is bad: %s", use.Version, m.Why))
		}
		return nil
	}
	m := store.Mark{Version: use.Version, Digest: use.Digest, By: w.Holder, At: time.Now()}
	t := p.Train
	switch {
	case t != nil && t.Release == use.Version && t.Verdict == plan.Stops:
		m.Mark, m.Why = store.Bad, t.Why
		w.at("mark-bad")
		if err := w.Store.MarkRelease(ctx, m); err != nil && !errors.Is(err, store.ErrBad) {
			return err
		}
		w.sayf("release %d is bad, for good: %s", use.Version, t.Why)
		w.stop(fmt.Sprintf("release %d is bad: %s", use.Version, t.Why))
		return nil
	case t != nil && t.Release == use.Version && t.Verdict == plan.Ends:
		m.Mark, m.Why = store.Good, "its train is over: "+t.Why
	case known.Good() == 0 && firstServed(known):
		m.Mark, m.Why = store.Good, "the first that a server serves with"
	default:
		return nil
	}
	if marked(known, m) {
		return nil
	}
	w.at("mark-good")
	if err := w.Store.MarkRelease(ctx, m); err != nil && !errors.Is(err, store.ErrBad) {
		return err
	}
	w.sayf("release %d is good: %s", use.Version, m.Why)
	return nil
}

// stop has the run begin nothing more, for good.
func (w *work) stop(why string) {
	if w.halted != stopped {
		w.halted, w.why = stopped, why
		w.sayf("run %d: %s: nothing more begins, what is under way ends", w.result.Run, why)
	}
}

// firstServed reports whether a server serves with the release in use.
func firstServed(known Known) bool {
	for _, o := range known.Outcomes {
		if o.Served && o.Restarted {
			return true
		}
	}
	return false
}

func marked(known Known, m store.Mark) bool {
	for _, x := range known.Marks {
		if x.Version == m.Version && x.Digest == m.Digest && x.Mark == m.Mark {
			return true
		}
	}
	return false
}

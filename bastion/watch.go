package bastion

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"mayfly/internal/hint"
	"mayfly/policies/witness"
)

// Implementation constants of watching.
const (
	pollInterval = 250 * time.Millisecond // a new policy is in force, and who it denies is out, well within a second
	settleTime   = time.Second            // for files that are written in pieces, before they count as bad
	retryFresh   = 2 * time.Second        // of a policy that witnesses did not confirm yet, and of files that could not be read
	decideEvery  = time.Minute            // a policy's own expiry reaches live sessions within this
)

// watcher is what watch remembers from one look at the files to the next.
type watcher struct {
	loaded  stamp     // as they were when they were last read
	seen    stamp     // as they were at the last look
	changed time.Time // when they were last seen to change
	retry   time.Time // when to read them again although they did not change; zero: not
	said    bool      // that this state of the files is not in force was recorded
	decided time.Time // when live sessions were last decided
}

// look reports whether the files have to be read now.
func (w *watcher) look(current stamp, asked bool, now time.Time) bool {
	if current != w.seen {
		w.seen, w.changed, w.said = current, now, false
	}
	return asked || current != w.loaded || !w.retry.IsZero() && !now.Before(w.retry)
}

// watch reloads when files have changed or when asked to, and keeps the counted refusals and live sessions up to date. A file that is
// moved into place is read at once; what cannot be read gets a second to become whole before that is an error.
func (s *Server) watch(ctx context.Context, reload <-chan os.Signal) {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	w := watcher{loaded: s.loaded, seen: s.loaded, decided: time.Now()}
	for {
		asked := false
		select {
		case <-ctx.Done():
			return
		case <-reload:
			asked = true
		case <-ticker.C:
		}
		now := time.Now()
		if w.look(s.config.stamp(), asked, now) {
			w.loaded = w.seen
			s.reload(&w, asked, now)
		} else if now.Sub(w.decided) >= decideEvery {
			s.sessions.decideAgain(s.ruling.Load(), now)
			w.decided = now
		}
		s.countDrops(now)
		s.watchAudit()
		s.refusals.flush(now, s.writeRefusal)
	}
}

// reload takes what is new and good, and keeps the old of the rest: a host certificate that has run out must not hold up a policy
// that takes somebody's key away, and the other way round.
func (s *Server) reload(w *watcher, asked bool, now time.Time) {
	old := s.ruling.Load()
	next, err := s.next(old, now)
	w.retry = time.Time{}
	if err != nil && !asked && next.bundle.Version == old.bundle.Version {
		switch settled := now.Sub(w.changed) >= settleTime; {
		case !settled:
			w.retry = now
			return
		case w.said: // a retry that came to nothing
			w.retry = retryAt(err, now)
			return
		}
	}
	if next.bundle.Version != old.bundle.Version || next.fresh.seenTrust() != old.fresh.seenTrust() {
		// Remembered before it is in force: what a restart could go back from is not taken.
		if rememberErr := rememberVersion(s.config, next.seen()); rememberErr != nil {
			w.retry = now.Add(decideEvery)
			err = errors.Join(err, fmt.Errorf("remembering policy version %d: %w", next.bundle.Version, rememberErr))
			kept, ruleErr := rule(old.bundle, next.keys)
			if ruleErr == nil {
				kept.fresh, kept.statements = old.fresh, old.statements
				if next.fresh != nil && next.fresh.broken != "" {
					kept.fresh = next.fresh
				}
				next = kept
			} else {
				next, err = old, errors.Join(err, ruleErr)
			}
		}
	}
	if w.retry.IsZero() {
		w.retry = retryAt(err, now)
	}
	w.said = true
	if swapErr := s.listener.Swap(next.filter); swapErr != nil {
		// Admission after accept still goes by the new list; what the old filter lets through is turned away there.
		err = errors.Join(err, swapErr, s.listener.Swap(old.filter))
	}
	s.pinPlugins(next.bundle.Policy) // a plugin that is not asked before it runs denies until then
	next = s.take(next)
	s.warnPorts(next, s.log)
	s.sayTrust(old.fresh, next.fresh)
	if next.bundle != old.bundle {
		s.warnKeys(next)
	}
	record := next.record("in_force")
	record.Cut = s.sessions.decideAgain(next, now)
	w.decided = now
	if next.bundle.Version != old.bundle.Version {
		s.askAgain()
	}
	if err != nil {
		record.Outcome, record.Detail = "kept_old", escape(err.Error(), maxDetail)
		s.log.Error("not all of the new policy and host certificate is in force", "version", next.bundle.Version, "error", err, "hint", hint.Of(err))
	} else {
		s.log.Info("policy in force", "version", next.bundle.Version, "expires", next.bundle.Expires, "cut", record.Cut)
	}
	s.metrics.policy(record.Outcome)
	if record.Outcome == "kept_old" {
		s.notify(noticePolicy, record)
	}
	s.append(eventPolicy, record)
}

// retryAt is when files that were refused are read again although they stay as they are: soon, if it was the witnesses who did not
// know the policy yet, or a file could not be read.
func retryAt(err error, now time.Time) time.Time {
	if v := (witness.Verdict{}); errors.As(err, &v) && v.Reason == witness.Missing {
		return now.Add(retryFresh)
	}
	if unread(err) {
		return now.Add(retryFresh)
	}
	return time.Time{}
}

// next is the ruling of the files as they are now; what cannot be loaded is as in the old one, and the error says why.
func (s *Server) next(old *ruling, now time.Time) (*ruling, error) {
	b, fresh, err := loadFresh(s.config, old.seen(), old.fresh, now)
	if err != nil {
		if b = old.bundle; fresh == nil {
			fresh = old.fresh
		}
	}
	keys, keysErr := loadHostKeys(s.config.HostKey, s.config.HostCertificate, now)
	if keysErr == nil {
		keysErr = hint.New(keys.suits(b), certifyHint)
	}
	if keysErr != nil { // the old ones stay, whatever they are: they hold up no policy
		keys, err = old.keys, errors.Join(err, keysErr)
	}
	next, ruleErr := rule(b, keys)
	if ruleErr != nil {
		return old, errors.Join(err, ruleErr)
	}
	next.fresh, next.statements = fresh, old.statements
	return next, err
}

package bastion

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"mayfly/policies"
)

// Implementation constants of asking about live sessions again.
const (
	replugAtOnce = 16                     // questions: the others of the host's places are for who logs in meanwhile
	replugLimit  = 30 * time.Second       // from a new policy: who was not allowed until then is cut
	replugPause  = 250 * time.Millisecond // before a plugin that does not answer is asked again: it may be starting
)

// What happened to plugins.
const (
	pluginsEnded = "host_ended"
	pluginsAsked = "asked_again"
)

// pluginsRecord is written when live sessions were asked about again, and when the plugins' host has ended.
type pluginsRecord struct {
	Outcome string `json:"outcome"` // "asked_again" or "host_ended"
	Policy  uint64 `json:"policy"`
	Asked   int    `json:"asked"` // sessions and targets
	Cut     int    `json:"cut"`
}

// PluginsStatus is how plugins do.
type PluginsStatus struct {
	Names []string `json:"names"` // of the policy in force
	Works bool     `json:"works"` // their host runs; whether each of them does is in its answers
}

func (s *Server) pluginsStatus(r *ruling) *PluginsStatus {
	names := []string{}
	for _, p := range r.bundle.Policy.Plugins {
		names = append(names, p.Name)
	}
	if s.plugins == nil && len(names) == 0 {
		return nil
	}
	status := &PluginsStatus{Names: names}
	if s.plugins != nil {
		select {
		case <-s.plugins.Done():
		default:
			status.Works = true
		}
	}
	return status
}

// askAgain has watchPlugins ask about who is in.
func (s *Server) askAgain() {
	select {
	case s.repinned <- struct{}{}:
	default: // it is about to
	}
}

// watchPlugins asks about live sessions again after each new policy, and says when the host of plugins ends, until ctx does.
func (s *Server) watchPlugins(ctx context.Context) {
	var ended <-chan struct{}
	if s.plugins != nil {
		ended = s.plugins.Done()
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-ended:
			ended = nil
			s.log.Error("bastion-plugins has ended: whatever a plugin decides is denied until the bastion is started again",
				"hint", "systemctl restart bastion; a confined bastion cannot start it")
			record := pluginsRecord{Outcome: pluginsEnded, Policy: s.ruling.Load().bundle.Version}
			s.append(eventPlugins, record)
			s.notify(noticePlugins, record)
		case <-s.repinned:
			s.replug(ctx, time.Now())
		}
	}
}

// question is one that is put to plugins about what is open: a session, or one of its targets.
type question struct {
	visit  *visit
	login  policies.Login
	target *opened // nil: the session
}

// questions about all that is open under a policy.
func (s *Server) questions(p policies.Policy) (list []question) {
	login, target := len(pins(p, policies.DecidesLogin)) > 0, len(pins(p, policies.DecidesTarget)) > 0
	if !login && !target {
		return nil
	}
	for v, l := range s.sessions.list() {
		if login {
			list = append(list, question{visit: v, login: l})
		}
		if target {
			for _, o := range v.openTargets() {
				list = append(list, question{v, l, o})
			}
		}
	}
	return list
}

// replug asks the plugins of a new policy about all that is open. Who they deny is cut at once. One that does not answer is asked again, since
// a plugin that was pinned just now has to start, and what it did not allow within the limit is cut.
func (s *Server) replug(ctx context.Context, began time.Time) {
	r := s.ruling.Load()
	open := s.questions(r.bundle.Policy)
	if len(open) == 0 {
		return
	}
	record := pluginsRecord{Outcome: pluginsAsked, Policy: r.bundle.Version, Asked: len(open)}
	asking, stop := context.WithDeadline(ctx, began.Add(replugLimit))
	defer stop()
	for len(open) > 0 && ctx.Err() == nil {
		if s.ruling.Load().bundle.Version != r.bundle.Version {
			break // a newer policy has its own questions, about these as well
		}
		var cut int
		open, cut = s.round(asking, r, open)
		record.Cut += cut
		if len(open) > 0 {
			pause(asking, replugPause)
		}
	}
	if ctx.Err() != nil {
		return // it stops
	}
	s.log.Info("plugins were asked about who is in", "version", record.Policy, "asked", record.Asked, "cut", record.Cut)
	s.append(eventPlugins, record)
}

// round puts each question once, and returns those without an answer. After the deadline there are none: what was not allowed is cut.
func (s *Server) round(ctx context.Context, r *ruling, open []question) (left []question, cut int) {
	verdicts := make([]policies.Verdict, len(open))
	var next atomic.Int64
	var asking sync.WaitGroup
	for range min(replugAtOnce, len(open)) {
		asking.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(open); i = int(next.Add(1)) - 1 {
				verdicts[i] = s.put(ctx, r, open[i])
			}
		})
	}
	asking.Wait()
	over := errors.Is(ctx.Err(), context.DeadlineExceeded) && s.ruling.Load().bundle.Version == r.bundle.Version
	for i, q := range open {
		verdict := verdicts[i]
		switch {
		case verdict.Allow:
		case verdict.Reason != pluginDenied && !over:
			left = append(left, q)
		case q.target != nil:
			q.target.cut(endPolicy, verdict.Reason)
			cut++
		default:
			q.visit.cut(endPolicy, verdict.Reason)
			cut++
		}
	}
	return left, cut
}

// put asks one question.
func (s *Server) put(ctx context.Context, r *ruling, q question) policies.Verdict {
	if ctx.Err() != nil {
		return policies.Verdict{Reason: pluginLate}
	}
	q.visit.mu.Lock()
	who := q.visit.entered
	q.visit.mu.Unlock()
	if q.target != nil {
		return q.visit.ask(ctx, r, policies.DecidesTarget, q.login, who, q.target.target)
	}
	return q.visit.ask(ctx, r, policies.DecidesLogin, q.login, who, policies.Target{})
}

package bastion

import (
	"slices"
	"sync"
	"time"

	"mayfly/policies"
)

// sessions is who is in. Its size is bounded by the policy's limits.
type sessions struct {
	mu          sync.Mutex
	all         map[*visit]string // by engineer
	perEngineer map[string]int
}

// enter takes a place for an authenticated visit, or says why there is none.
func (s *sessions) enter(v *visit, limits policies.Limits) (refused policies.Reason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	user := v.login.User
	switch {
	case len(s.all) >= limits.MaxSessions:
		return sessionsFull
	case s.perEngineer[user] >= limits.MaxPerEngineer:
		return engineerFull
	}
	if s.all == nil {
		s.all, s.perEngineer = make(map[*visit]string), make(map[string]int)
	}
	s.all[v] = user
	s.perEngineer[user]++
	return ""
}

// leave gives the place back; a visit that has none is no error.
func (s *sessions) leave(v *visit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	user, in := s.all[v]
	if !in {
		return
	}
	delete(s.all, v)
	if s.perEngineer[user]--; s.perEngineer[user] == 0 {
		delete(s.perEngineer, user)
	}
}

func (s *sessions) list() []*visit {
	s.mu.Lock()
	defer s.mu.Unlock()
	visits := make([]*visit, 0, len(s.all))
	for v := range s.all {
		visits = append(visits, v)
	}
	return visits
}

// decideAgain cuts the sessions, and the single targets, that the ruling no longer allows.
func (s *sessions) decideAgain(r *ruling, now time.Time) (cut int) {
	for _, v := range s.list() {
		cut += v.decideAgain(r, now)
	}
	return cut
}

func (v *visit) decideAgain(r *ruling, now time.Time) (cut int) {
	if verdict := r.decideLogin(v.login, now); !verdict.Allow {
		v.cut(endPolicy, verdict.Reason)
		return 1
	}
	for _, t := range v.openTargets() {
		verdict := r.decideTarget(v.login, t.target, now)
		if verdict.Allow {
			server, _ := r.bundle.Inventory.Server(t.target.Server)
			if server.Address.Addr() != t.address.Addr() {
				verdict = policies.Verdict{Reason: policies.TargetUnknown} // the name means another machine now
			}
		}
		if !verdict.Allow {
			t.cut(endPolicy, verdict.Reason)
			cut++
		}
	}
	return cut
}

func (v *visit) openTargets() []*opened {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.open)
}

package bastion

import (
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"mayfly/policies"
)

// sessions is who is in. Its size is bounded by the policy's limits.
type sessions struct {
	mu          sync.Mutex
	all         map[*visit]policies.Login
	robots      map[*visit]bool // those of all that are robots'
	perEngineer map[string]int  // robots as well: nobody shares a name
	perSource   map[netip.Prefix]int
}

// enter takes a place for an authenticated visit, or says why there is none.
func (s *sessions) enter(v *visit, login policies.Login, kind policies.Kind, limits policies.Limits) (refused policies.Reason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	user := login.User
	robot := kind == policies.KindRobot
	switch { // robots never take a person's place
	case robot && len(s.robots) >= limits.MaxRobots:
		return robotsFull
	case robot && s.perEngineer[user] >= limits.MaxPerRobot:
		return robotFull
	case !robot && len(s.all)-len(s.robots) >= limits.MaxSessions:
		return sessionsFull
	case !robot && s.perEngineer[user] >= limits.MaxPerEngineer:
		return engineerFull
	}
	if s.all == nil {
		s.all, s.perEngineer, s.perSource = make(map[*visit]policies.Login), make(map[string]int), make(map[netip.Prefix]int)
		s.robots = make(map[*visit]bool)
	}
	s.all[v] = login
	if robot {
		s.robots[v] = true
	}
	s.perEngineer[user]++
	s.perSource[network(login.Source)]++
	return ""
}

// leave gives the place back; a visit that has none is no error.
func (s *sessions) leave(v *visit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	login, in := s.all[v]
	if !in {
		return
	}
	delete(s.all, v)
	delete(s.robots, v)
	user, from := login.User, network(login.Source)
	if s.perEngineer[user]--; s.perEngineer[user] == 0 {
		delete(s.perEngineer, user)
	}
	if s.perSource[from]--; s.perSource[from] == 0 {
		delete(s.perSource, from)
	}
}

// from tells whether somebody is in from this network.
func (s *sessions) from(n netip.Prefix) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.perSource[n] > 0
}

// busy counts the sessions in which bytes have moved since a time.
func (s *sessions) busy(since time.Time) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for v := range s.all {
		if v.began.Add(time.Duration(v.last.Load())).After(since) {
			n++
		}
	}
	return n
}

// list has the logins that were entered: a visit's own may change until its handshake is over.
func (s *sessions) list() map[*visit]policies.Login {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.all)
}

// certificateEnd is when the first of the certificates ends by which somebody is in; the zero time if there is none.
func (s *sessions) certificateEnd() (first time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, login := range s.all {
		if c := login.Certificate; c != nil {
			first = sooner(first, c.End())
		}
	}
	return first
}

// sooner is the earlier of two times; the zero time is none.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// decideAgain cuts the sessions, and the single targets, that the ruling no longer allows.
func (s *sessions) decideAgain(r *ruling, now time.Time) (cut int) {
	for v, login := range s.list() {
		cut += v.decideAgain(r, login, now)
	}
	return cut
}

func (v *visit) decideAgain(r *ruling, login policies.Login, now time.Time) (cut int) {
	if verdict := v.decide(r, login, now); !verdict.Allow {
		v.cut(endPolicy, verdict.Reason)
		return 1
	}
	v.limitAgain(r.limits)
	for _, t := range v.openTargets() {
		verdict := r.decideWay(login, t.target, t.session, now)
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

package bastion

import (
	"net/netip"
	"sync"
	"time"

	"mayfly/policies"
)

// maxRepeated bounds the sources and names whose refusals are counted for alerts. A full table forgets any other.
const maxRepeated = 4096

// repeated counts refusals for alerts.
type repeated struct {
	mu  sync.Mutex
	all map[string]*repetition
}

type repetition struct {
	began time.Time
	count int
}

// add counts one, and tells when there have been so many in this time. Then the count begins anew.
func (r *repeated) add(subject string, most int, within time.Duration, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	one := r.all[subject]
	if one == nil {
		if r.all == nil {
			r.all = make(map[string]*repetition)
		}
		for other := range r.all {
			if len(r.all) < maxRepeated {
				break
			}
			delete(r.all, other)
		}
		one = &repetition{began: now}
		r.all[subject] = one
	}
	if d := now.Sub(one.began); d >= within || d < 0 {
		one.began, one.count = now, 0
	}
	if one.count++; one.count < most {
		return false
	}
	delete(r.all, subject)
	return true
}

// refusedAgain counts what a listed source, or somebody with a user's name, was refused for by their own doing.
func (s *Server) refusedAgain(r *ruling, source netip.Addr, user string, why policies.Reason, now time.Time) {
	own := penaltyCosts[why] > 0 && why != leftEarly || why == sourcePenalised
	if s.alerts == nil || !own || r.bundle.Policy.Exempt(source) {
		return
	}
	subjects := []string{"source " + network(source).String()}
	if r.hasUser(user) {
		subjects = append(subjects, "user "+user)
	}
	most, within := s.config.Alerts.often()
	for _, subject := range subjects {
		if s.repeated.add(subject, most, within, now) {
			s.notify(noticeRepeated, repeatedNotice{subject: subject, count: most, within: within, last: why})
		}
	}
}

// hasUser tells whether the policy has a user of this name.
func (r *ruling) hasUser(name string) bool {
	for _, e := range r.bundle.Policy.Engineers {
		if e.Name == name {
			return true
		}
	}
	for _, b := range r.bundle.Policy.Robots {
		if b.Name == name {
			return true
		}
	}
	for _, b := range r.bundle.Policy.BreakGlass {
		if b.Name == name {
			return true
		}
	}
	return false
}

// claimedUser is the name that was claimed; empty before that.
func (v *visit) claimedUser() string {
	if v.meta == nil {
		return ""
	}
	user, _ := v.server.user(v.meta.User())
	return user
}

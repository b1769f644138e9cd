package bastion

import (
	"context"
	"net/netip"
	"time"

	"mayfly/policies"
)

// loginSeen is an engineer who was let in.
type loginSeen struct {
	visit    *visit
	user, id string
	source   netip.Addr
	at       time.Time
}

// comesFrom has an engineer's network looked up, by somebody for whom no login waits.
func (v *visit) comesFrom(now time.Time) {
	a := v.server.alerts
	if a == nil || v.credential.identity != policies.KindEngineer {
		return
	}
	select {
	case a.logins <- loginSeen{visit: v, user: v.login.User, id: v.id, source: v.login.Source, at: now}:
	default:
		a.log.Warn("more logins than can be looked at for alerts")
	}
}

// followLogins looks at who was let in, until ctx ends.
func (s *Server) followLogins(ctx context.Context) {
	if s.alerts == nil {
		return
	}
	for {
		select {
		case <-ctx.Done():
			return
		case l := <-s.alerts.logins:
			s.lookAt(l)
		}
	}
}

func (s *Server) lookAt(l loginSeen) {
	known := s.alerts.known
	here := known.Network(l.source)
	unheard, first := known.Note(l.user, here, l.at)
	if unheard {
		if err := known.Save(); err != nil {
			s.log.Error("a network that an engineer used is not remembered", "error", err)
		}
		if !first {
			s.notify(noticeNetwork, networkNotice{user: l.user, connection: l.id, network: here})
		}
	}
	for other, login := range s.sessions.list() {
		if other == l.visit || login.User != l.user {
			continue
		}
		if there := known.Network(login.Source); there != here {
			s.notify(noticeNetworks, networkNotice{user: l.user, connection: l.id, network: here, other: there})
			return
		}
	}
}

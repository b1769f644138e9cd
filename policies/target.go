package policies

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"mayfly/inventory"
)

// Target is where an admitted engineer wants to go.
type Target struct {
	Server string
	Port   uint16
}

// DecideTarget decides on a login and on where it wants to go.
func (p Policy) DecideTarget(l Login, t Target, f inventory.Fleet, s Statements, now time.Time) Verdict {
	return p.decideTarget(l, t, false, f, s, now)
}

// DecideSession decides on a login and on the server at which the bastion is to log in for it, and to record.
func (p Policy) DecideSession(l Login, server string, f inventory.Fleet, s Statements, now time.Time) Verdict {
	return p.decideTarget(l, Target{Server: server, Port: inventory.PortSSH}, true, f, s, now)
}

func (p Policy) decideTarget(l Login, t Target, session bool, f inventory.Fleet, s Statements, now time.Time) Verdict {
	v, who := p.decideLogin(l, s, now)
	if !v.Allow {
		return v
	}
	server, ok := f.Server(t.Server)
	if !ok || t.Server == "" {
		return deny(TargetUnknown, "no server %q in the inventory", t.Server).as(v.Kind)
	}
	if session && (who.kind != KindEngineer || !p.Session.On()) {
		return deny(SessionNotGranted, "no session mode for %s", l.User).as(v.Kind)
	}
	switch who.kind {
	case KindBreakGlass:
		return who.glass.decideTarget(t, f, v).as(v.Kind)
	case KindRobot:
		return who.robot.decideTarget(t, server).as(v.Kind)
	}
	return p.decideGrant(l, t, session, server, f, s, now).as(v.Kind)
}

// decideGrant decides on the target of somebody who may log in.
// Of several grants that do not allow it, the first one says why.
func (p Policy) decideGrant(l Login, t Target, session bool, server inventory.Server, f inventory.Fleet, s Statements, now time.Time) Verdict {
	granted := false
	var refused *Verdict
	for i, g := range p.Grants {
		if !slices.Contains(g.Engineers, l.User) || !g.Covers(t.Server, f.RegionOf(t.Server)) {
			continue
		}
		granted = true
		if !g.opens(t.Port) {
			continue
		}
		v := g.decideWay(t, session)
		if v.Allow {
			v = p.decideConditions(g, l, t, server, f, s, now)
		}
		if v.Allow {
			v.Basis.Grant = i + 1
			return v
		}
		if refused == nil {
			v.Detail = fmt.Sprintf("grant %d: %s", i+1, v.Detail)
			refused = &v
		}
	}
	if refused != nil {
		return *refused
	}
	if granted {
		return deny(PortNotGranted, "port %d of %s is not granted to %s", t.Port, t.Server, l.User)
	}
	return deny(TargetNotGranted, "%s is not granted to %s", t.Server, l.User)
}

// decideWay keeps a grant for recorded sessions to those, and others from them.
func (g Grant) decideWay(t Target, session bool) Verdict {
	switch {
	case g.Session && !session:
		return deny(SessionOnly, "port %d of %s is granted for recorded sessions", t.Port, t.Server)
	case session && !g.Session:
		return deny(SessionNotGranted, "%s is not granted for recorded sessions", t.Server)
	}
	return allow("the way is granted")
}

// decideConditions decides what a grant asks for beside engineer, server and port.
func (p Policy) decideConditions(g Grant, l Login, t Target, server inventory.Server, f inventory.Fleet, s Statements, now time.Time) Verdict {
	var b Basis
	if !g.inWindow(now) {
		return deny(OutsideWindow, "it is %s, outside of its windows", now.UTC().Format("Mon 15:04 MST"))
	}
	if g.Drained && server.Role == inventory.RoleVPN {
		epoch, v := s.drained(t.Server, now)
		if !v.Allow {
			return v
		}
		b.Drained = epoch
	}
	if g.Approval {
		id, v := p.approved(l, t, f, s, now)
		if !v.Allow {
			return v
		}
		b.Approval = id
	}
	v := allow("granted")
	v.Basis = b
	return v
}

// Granted lists the engineers whom a grant lets go to the target, each with the keys that are accepted, for a server that has to
// know them beforehand: whatever their grant asks for besides, and break-glass identities as well, sealed or not, since what keeps those
// out is the bastion. It is nobody once the policy has expired. The address is decided at the bastion.
func (p Policy) Granted(t Target, f inventory.Fleet, now time.Time) []Engineer {
	if _, ok := f.Server(t.Server); !ok || t.Server == "" || !now.Before(p.Expires) {
		return nil
	}
	var list []Engineer
	for _, e := range p.Engineers {
		granted := slices.ContainsFunc(p.Grants, func(g Grant) bool {
			return !g.Session && slices.Contains(g.Engineers, e.Name) && g.opens(t.Port) && g.Covers(t.Server, f.RegionOf(t.Server))
		})
		e.Keys = slices.DeleteFunc(slices.Clone(e.Keys), func(k Key) bool { return !p.accept(e.Name, k).Allow })
		if granted && len(e.Keys) > 0 {
			list = append(list, e)
		}
	}
	for _, b := range p.BreakGlass {
		if g := b.reach(); g.opens(t.Port) && g.Covers(t.Server, f.RegionOf(t.Server)) {
			keys := slices.DeleteFunc(slices.Clone(b.Keys), func(k Key) bool { return !p.accept(b.Name, k).Allow })
			if len(keys) > 0 {
				list = append(list, Engineer{Name: b.Name, Keys: keys})
			}
		}
	}
	return list
}

// opens reports whether the grant is for the port.
func (g Grant) opens(port uint16) bool { return port != 0 && slices.Contains(g.Ports, port) }

// Covers reports whether the grant covers the server, which is in the region.
func (g Grant) Covers(server, region string) bool {
	for _, s := range g.Servers {
		if r, ok := strings.CutPrefix(s, regionPrefix); ok && r == region && region != "" || s == everyServer || s == server {
			return true
		}
	}
	return false
}

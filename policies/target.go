package policies

import (
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
func (p Policy) DecideTarget(l Login, t Target, f inventory.Fleet, now time.Time) Verdict {
	v := p.DecideLogin(l, now)
	if !v.Allow {
		return v
	}
	return p.decideGrant(l, t, f).as(v.Kind)
}

// decideGrant decides on the target of somebody who may log in.
func (p Policy) decideGrant(l Login, t Target, f inventory.Fleet) Verdict {
	if _, ok := f.Server(t.Server); !ok || t.Server == "" {
		return deny(TargetUnknown, "no server %q in the inventory", t.Server)
	}
	granted := false
	for i, g := range p.Grants {
		if !slices.Contains(g.Engineers, l.User) || !g.Covers(t.Server, f.RegionOf(t.Server)) {
			continue
		}
		granted = true
		if g.opens(t.Port) {
			return allow("grant %d", i+1)
		}
	}
	if granted {
		return deny(PortNotGranted, "port %d of %s is not granted to %s", t.Port, t.Server, l.User)
	}
	return deny(TargetNotGranted, "%s is not granted to %s", t.Server, l.User)
}

// Granted lists the engineers whom a grant lets go to the target, each with the keys of hardware types, for a server that has to
// know them beforehand. It is nobody once the policy has expired. The address is decided at the bastion.
func (p Policy) Granted(t Target, f inventory.Fleet, now time.Time) []Engineer {
	if _, ok := f.Server(t.Server); !ok || t.Server == "" || !now.Before(p.Expires) {
		return nil
	}
	var list []Engineer
	for _, e := range p.Engineers {
		granted := slices.ContainsFunc(p.Grants, func(g Grant) bool {
			return slices.Contains(g.Engineers, e.Name) && g.opens(t.Port) && g.Covers(t.Server, f.RegionOf(t.Server))
		})
		e.Keys = slices.DeleteFunc(slices.Clone(e.Keys), func(k Key) bool { return !hardwareKey(k.Public) })
		if granted && len(e.Keys) > 0 {
			list = append(list, e)
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

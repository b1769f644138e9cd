package policies

import (
	"fmt"
	"slices"
	"time"

	"mayfly/internal/tomlfile"
	"mayfly/inventory"
)

// BreakGlass is an identity for the day on which nothing else works. It is sealed: nobody logs in as it until as many people as
// the trust policy asks have signed an opening, which ends by itself. Its addresses are all of ssh.allow.
type BreakGlass struct {
	Name    string   `toml:"name" json:"name"` // Unix account name, nobody else's
	Keys    []Key    `toml:"key" json:"keys"`  // in hardware, with evidence, as an engineer's
	Servers []string `toml:"servers" json:"servers"`
	Ports   []uint16 `toml:"ports" json:"ports"`
}

// maxBreakGlass identities of a policy: more than a few is a second list of engineers.
const maxBreakGlass = 8

func (b BreakGlass) reach() Grant { return Grant{Servers: b.Servers, Ports: b.Ports} }

// decideOpening decides whether a break-glass identity whose key is good is open. The seal comes last: an opening helps nobody
// without the key.
func (a holder) decideOpening(s Statements, now time.Time) Verdict {
	o, ok := s.opened(a.name, now)
	if !ok {
		return deny(BreakGlassSealed, "no opening of %s is in force", a.name)
	}
	v := allow("%s, opening %s", a.name, o.ID)
	v.Basis.Opening = o.ID
	return v
}

// decideBreakGlassTarget decides where an opened identity may go. login is the verdict on its login.
func (b BreakGlass) decideTarget(t Target, f inventory.Fleet, login Verdict) Verdict {
	switch g := b.reach(); {
	case !g.Covers(t.Server, f.RegionOf(t.Server)):
		return deny(TargetNotGranted, "%s is not for %s", t.Server, b.Name)
	case !g.opens(t.Port):
		return deny(PortNotGranted, "port %d of %s is not for %s", t.Port, t.Server, b.Name)
	}
	v := allow("opening %s", login.Basis.Opening)
	v.Basis = login.Basis
	return v
}

// Opened lists the break-glass identities that are open now, with their openings.
func (p Policy) Opened(s Statements, now time.Time) map[string]Opening {
	open := map[string]Opening{}
	for _, b := range p.BreakGlass {
		if o, ok := s.opened(b.Name, now); ok {
			open[b.Name] = o
		}
	}
	return open
}

// checkBreakGlass runs after checkEngineers, so names and keys of engineers are good.
func (p Policy) checkBreakGlass() error {
	if len(p.BreakGlass) > maxBreakGlass {
		return tomlfile.At("break_glass", "one or two are enough", "%d break-glass identities: at most %d", len(p.BreakGlass), maxBreakGlass)
	}
	names, keys := map[string]bool{}, map[string]string{}
	for _, e := range p.Engineers {
		names[e.Name] = true
		for _, k := range e.Keys {
			keys[k.Public] = e.Name
		}
	}
	for i, b := range p.BreakGlass {
		path := fmt.Sprintf("break_glass[%d]", i)
		if slices.Contains(reserved, b.Name) || !account.MatchString(b.Name) {
			return tomlfile.At(path+".name", "lower-case letters, digits and -, at most 31, a letter first, and no account of the system", "break-glass name %q is no Unix account name for people", b.Name)
		}
		if names[b.Name] {
			return tomlfile.At(path+".name", "a name of its own", "break-glass identity %q has the name of somebody else", b.Name)
		}
		names[b.Name] = true
		if len(b.Keys) > maxKeys {
			return tomlfile.At(path, "fleetctl key revoke takes one away", "break-glass identity %q has %d keys: at most %d", b.Name, len(b.Keys), maxKeys)
		}
		for j, k := range b.Keys {
			if err := p.checkKey(fmt.Sprintf("%s.key[%d]", path, j), b.Name, k, keys); err != nil {
				return err
			}
		}
		if err := checkReach(path, fmt.Sprintf("break-glass identity %q", b.Name), b.Servers, b.Ports); err != nil {
			return err
		}
	}
	return nil
}

package policies

import (
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Login is somebody who asks to be let in, after proof of possession.
type Login struct {
	Source netip.Addr // unmapped
	User   string
	Key    string // authorized_keys form of the proven public key: "TYPE BASE64"
}

// Admit decides on an address alone, before anything is read from it.
func (p Policy) Admit(addr netip.Addr, now time.Time) Verdict {
	if !now.Before(p.Expires) {
		return deny(PolicyExpired, "policy %d expired at %s", p.Version, p.Expires.UTC().Format(time.RFC3339))
	}
	if prefix, ok := listed(p.SSH.Allow, addr); ok {
		return allow("%s", prefix)
	}
	return deny(AddressNotListed, "%s is not in ssh.allow", addr)
}

// DecideLogin decides on a person with a proven key, and decides the address again.
func (p Policy) DecideLogin(l Login, s Statements, now time.Time) Verdict {
	if v := p.Admit(l.Source, now); !v.Allow {
		return v
	}
	if strings.EqualFold(strings.TrimSpace(l.User), "root") {
		return deny(UserRoot, "nobody logs in as root")
	}
	if b, ok := p.glass(l.User); ok {
		return p.decideBreakGlass(b, l, s, now).as(KindBreakGlass)
	}
	i := slices.IndexFunc(p.Engineers, func(e Engineer) bool { return e.Name == l.User })
	if i < 0 || l.User == "" {
		return deny(UserUnknown, "no engineer %q", l.User)
	}
	return p.decideEngineer(p.Engineers[i], l).as(KindEngineer)
}

// decideEngineer decides on a person of this name.
func (p Policy) decideEngineer(e Engineer, l Login) Verdict {
	if len(e.Allow) > 0 {
		if _, ok := listed(e.Allow, l.Source); !ok {
			return deny(AddressNotListed, "%s is not in the list of %s", l.Source, e.Name)
		}
	}
	return p.decideKey(e.Name, e.Keys, l.Key)
}

// decideKey decides on a proven key: it is one of these, in hardware, and its evidence is accepted.
func (p Policy) decideKey(name string, keys []Key, public string) Verdict {
	if !hardwareKey(public) {
		keyType, _, _ := strings.Cut(public, " ")
		return deny(KeyNotHardware, "key type %q", keyType)
	}
	i := slices.IndexFunc(keys, func(k Key) bool { return k.Public == public })
	if i < 0 {
		return deny(KeyUnknown, "not enrolled for %s", name)
	}
	root, ok := p.evidence(keys[i])
	if !ok {
		return deny(KeyNoEvidence, "evidence %q of %s is not accepted", keys[i].Evidence, name)
	}
	return allow("%s, test root %s", name, root)
}

// listed returns the first prefix that holds the address. An IPv4 address in IPv6 form is the IPv4 address.
func listed(prefixes []netip.Prefix, addr netip.Addr) (netip.Prefix, bool) {
	addr = addr.Unmap().WithZone("")
	for _, p := range prefixes {
		if addr.IsValid() && p.Contains(addr) {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

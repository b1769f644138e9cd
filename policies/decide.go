package policies

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"mayfly/inventory"
)

// Reason says why something was refused, in one word that logs and tests share. The zero value is a refusal too.
type Reason string

const (
	Allowed          Reason = "allowed"
	PolicyExpired    Reason = "policy_expired"
	AddressNotListed Reason = "address_not_listed"
	UserRoot         Reason = "user_root"
	UserUnknown      Reason = "user_unknown"
	KeyUnknown       Reason = "key_unknown"      // a hardware key type, not enrolled for this user
	KeyNotHardware   Reason = "key_not_hardware" // a key type that any software can hold
	KeyNoEvidence    Reason = "key_no_evidence"
	TargetUnknown    Reason = "target_unknown"
	TargetNotGranted Reason = "target_not_granted"
	PortNotGranted   Reason = "port_not_granted"
)

// Verdict is a decision. Its zero value denies.
type Verdict struct {
	Allow  bool
	Reason Reason
	Detail string // for the audit log, never for the client
}

// Login is somebody who asks to be let in, after proof of possession.
type Login struct {
	Source netip.Addr // unmapped
	User   string
	Key    string // authorized_keys form of the proven public key: "TYPE BASE64"
}

// Target is where an admitted engineer wants to go.
type Target struct {
	Server string
	Port   uint16
}

func deny(r Reason, format string, args ...any) Verdict {
	return Verdict{Reason: r, Detail: fmt.Sprintf(format, args...)}
}

func allow(format string, args ...any) Verdict {
	return Verdict{Allow: true, Reason: Allowed, Detail: fmt.Sprintf(format, args...)}
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
func (p Policy) DecideLogin(l Login, now time.Time) Verdict {
	if v := p.Admit(l.Source, now); !v.Allow {
		return v
	}
	if strings.EqualFold(strings.TrimSpace(l.User), "root") {
		return deny(UserRoot, "nobody logs in as root")
	}
	i := slices.IndexFunc(p.Engineers, func(e Engineer) bool { return e.Name == l.User })
	if i < 0 || l.User == "" {
		return deny(UserUnknown, "no engineer %q", l.User)
	}
	e := p.Engineers[i]
	if len(e.Allow) > 0 {
		if _, ok := listed(e.Allow, l.Source); !ok {
			return deny(AddressNotListed, "%s is not in the list of %s", l.Source, e.Name)
		}
	}
	if !hardwareKey(l.Key) {
		keyType, _, _ := strings.Cut(l.Key, " ")
		return deny(KeyNotHardware, "key type %q", keyType)
	}
	k, ok := p.Enrolled(e.Name, l.Key)
	if !ok {
		return deny(KeyUnknown, "not enrolled for %s", e.Name)
	}
	root, ok := p.evidence(k)
	if !ok {
		return deny(KeyNoEvidence, "evidence %q of %s is not accepted", k.Evidence, e.Name)
	}
	return allow("%s, test root %s", e.Name, root)
}

// DecideTarget decides on a login and on where it wants to go.
func (p Policy) DecideTarget(l Login, t Target, f inventory.Fleet, now time.Time) Verdict {
	if v := p.DecideLogin(l, now); !v.Allow {
		return v
	}
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

// evidence returns the test root that vouches for the key. There is no other evidence yet.
func (p Policy) evidence(k Key) (root string, ok bool) {
	root, ok = strings.CutPrefix(k.Evidence, testEvidence)
	if !ok || root == "" || !slices.Contains(p.Hardware.TestRoots, root) {
		return "", false
	}
	return root, true
}

// Enrolled returns the engineer's key with this public half, "TYPE BASE64".
func (p Policy) Enrolled(engineer, public string) (Key, bool) {
	for _, e := range p.Engineers {
		for _, k := range e.Keys {
			if e.Name == engineer && k.Public == public {
				return k, true
			}
		}
	}
	return Key{}, false
}

// IsTestEvidence reports whether a key's evidence is a software authenticator's.
func IsTestEvidence(evidence string) bool { return strings.HasPrefix(evidence, testEvidence) }

// hardwareKey reports whether a key, "TYPE BASE64", is of a type that only hardware holds.
func hardwareKey(public string) bool {
	keyType, _, _ := strings.Cut(public, " ")
	return hardwareType(keyType)
}

func hardwareType(keyType string) bool { return keyType == skEd25519 || keyType == skECDSA }

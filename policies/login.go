package policies

import (
	"net/netip"
	"time"
)

// Login is somebody who asks to be let in, after proof of possession.
type Login struct {
	Source      netip.Addr // unmapped
	User        string
	Key         string       // authorized_keys form of the proven public key: "TYPE BASE64"; of a certificate, the key in it
	Certificate *Certificate // nil: a plain key
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

// DecideLogin decides on a person with a proven key, and decides the address again. A name that nobody has is decided like any other,
// and refused at the end: it takes as long.
func (p Policy) DecideLogin(l Login, s Statements, now time.Time) Verdict {
	v, _ := p.decideLogin(l, s, now)
	return v
}

func (p Policy) decideLogin(l Login, s Statements, now time.Time) (Verdict, holder) {
	a := p.find(l.User, l.Key)
	decided := p.decideAccount(a, l, s, now)
	admitted := p.Admit(l.Source, now)
	forbidden := forbiddenUser(l.User)
	switch {
	case !admitted.Allow:
		return admitted, a
	case forbidden == UserRoot:
		return deny(UserRoot, "nobody logs in as root"), a
	case forbidden != "":
		return deny(forbidden, "%q is an account of the system", l.User), a
	case a.kind == "":
		return deny(UserUnknown, "nobody is called %q", l.User), a
	}
	return decided.as(a.kind), a
}

// decideAccount decides on the key that somebody of this name has proven.
func (p Policy) decideAccount(a holder, l Login, s Statements, now time.Time) Verdict {
	if a.kind == KindRobot {
		return p.decideRobot(a.robot, l)
	}
	_, inList := listed(a.allow, l.Source)
	key := p.decideKey(a, l, now)
	switch {
	case len(a.allow) > 0 && !inList:
		return deny(AddressNotListed, "%s is not in the list of %s", l.Source, a.name)
	case !key.Allow:
		return key
	case a.kind == KindBreakGlass:
		return a.decideOpening(s, now)
	}
	return key
}

// decideKey decides on a proven key, and the certificate that it came in: it is this holder's, in hardware, and its evidence is accepted.
func (p Policy) decideKey(a holder, l Login, now time.Time) Verdict {
	c := l.Certificate
	accepted := p.accept(a.name, a.key)
	if c != nil {
		if v := p.decideCertificate(c, l, now); !v.Allow {
			return v
		}
	}
	switch {
	case p.revokedForGood(l.Key):
		return deny(KeyRevoked, "the key is revoked, by hardware.revoked")
	case !securityKey(l.Key) && !(a.enrolled && a.key.fits()): // software's, or a card's that is not known here
		return deny(KeyNotHardware, "key type %q", keyType(l.Key))
	case !a.enrolled && c != nil:
		return deny(CertificateKeyUnknown, "the certificate's key is not enrolled for %s", a.name)
	case !a.enrolled:
		return deny(KeyUnknown, "not enrolled for %s", a.name)
	case !accepted.Allow:
		return accepted
	}
	if c == nil {
		return accepted
	}
	if _, asked := c.Options[optionVerifyRequired]; asked {
		if proof, _ := p.Proof(a.name, a.key); !proof.UserVerification {
			return deny(KeyNoUserVerification, "the certificate asks for user verification, and evidence %q does not prove it", a.key.Evidence)
		}
	}
	return allow("%s, certificate %d", accepted.Detail, c.Serial)
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

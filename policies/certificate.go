package policies

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/tomlfile"
)

// Specification constants (PROTOCOL.certkeys).
const (
	optionSource         = "source-address"
	optionVerifyRequired = "verify-required"
	extensionNoTouch     = "no-touch-required"
	extensionForwarding  = "permit-port-forwarding"
)

// Implementation constants of certificates.
const (
	maxAuthorities = 16
	maxPrincipals  = 16
	maxSources     = 64

	// DefaultCertificateLife is the longest validity of a user certificate where the policy says nothing.
	DefaultCertificateLife = 24 * time.Hour
	// MaxCertificateLife is the longest that a policy may allow.
	MaxCertificateLife = 7 * 24 * time.Hour
)

// authorityTypes are key types that may sign user certificates.
var authorityTypes = []string{ssh.KeyAlgoED25519, skEd25519, skECDSA}

// MaySign reports whether a key of this type may sign user certificates at all. The signature of another is not worth verifying: a
// stranger chooses what that costs.
func MaySign(keyType string) bool { return slices.Contains(authorityTypes, keyType) }

// Certificates is which OpenSSH user certificates count beside plain keys, and what is revoked. None do where no authority is listed.
// The revocation list holds for plain keys too.
type Certificates struct {
	Authorities []string    `toml:"authorities" json:"authorities,omitempty"` // "TYPE BASE64"
	MaxLife     Duration    `toml:"max_life" json:"max_life,omitzero"`
	KRL         Revocations `toml:"krl" json:"krl,omitzero"`
}

// Life is the longest validity of a certificate.
func (c Certificates) Life() Duration {
	return Duration(pick(c.MaxLife.Std(), DefaultCertificateLife, MaxCertificateLife))
}

// Certificate is what an OpenSSH user certificate says. The zero value says nothing that would let anybody in.
type Certificate struct {
	Authority   string // who signed: "TYPE BASE64", a plain key
	Signed      bool   // the authority's signature verifies
	User        bool   // it is a user's certificate
	Serial      uint64
	KeyID       string
	Principals  []string
	ValidAfter  uint64 // seconds since 1970
	ValidBefore uint64
	Options     map[string]string // critical ones
	Extensions  map[string]string
}

// End is when the certificate expires.
func (c *Certificate) End() time.Time { return time.Unix(int64(min(c.ValidBefore, 1<<40)), 0) }

// decideCertificate decides on all that a certificate says, but not on its key: that has to be enrolled and have evidence as well.
func (p Policy) decideCertificate(c *Certificate, l Login, now time.Time) Verdict {
	switch {
	case c.Authority == "" || !slices.Contains(p.Certificates.Authorities, c.Authority):
		return deny(CertificateAuthorityUnknown, "the certificate's authority is not listed")
	case !c.Signed:
		return deny(CertificateAuthorityUnknown, "the certificate's signature is not its authority's")
	case !c.User:
		return deny(CertificateType, "it is no user's certificate")
	}
	for _, decide := range []func(*Certificate, Login, time.Time) Verdict{p.decidePrincipals, p.decideOptions, p.decideSource, p.decideValidity} {
		if v := decide(c, l, now); !v.Allow {
			return v
		}
	}
	if how := p.Certificates.KRL.certificate(l.Key, c); how != "" {
		return deny(CertificateRevoked, "certificate %d is on the revocation list, by %s", c.Serial, how)
	}
	return allow("certificate %d", c.Serial)
}

// decidePrincipals asks for the user's name among names that are all good: a certificate without any would be everybody's, and one
// with a list or a pattern in a name means something else to whoever splits it.
func (p Policy) decidePrincipals(c *Certificate, l Login, _ time.Time) Verdict {
	if len(c.Principals) == 0 || len(c.Principals) > maxPrincipals {
		return deny(CertificatePrincipal, "the certificate has %d principals: there must be 1 to %d", len(c.Principals), maxPrincipals)
	}
	for _, name := range c.Principals {
		if !AccountName(name) || forbiddenUser(name) != "" {
			return deny(CertificatePrincipal, "principal %q is no engineer's name", name)
		}
	}
	if !slices.Contains(c.Principals, l.User) {
		return deny(CertificatePrincipal, "the certificate is for %q", c.Principals)
	}
	return allow("principals")
}

func (p Policy) decideOptions(c *Certificate, l Login, _ time.Time) Verdict {
	for name, value := range c.Options {
		switch {
		case name == optionSource:
		case name == optionVerifyRequired && value == "":
		default:
			return deny(CertificateOption, "critical option %q is not known here", name)
		}
	}
	if _, ok := c.Extensions[extensionNoTouch]; ok {
		return deny(CertificateOption, "the certificate has %s: touch is never waived", extensionNoTouch)
	}
	if _, ok := c.Extensions[extensionForwarding]; !ok {
		return deny(CertificateOption, "the certificate lacks %s: there is nothing else here", extensionForwarding)
	}
	return allow("options")
}

func (p Policy) decideSource(c *Certificate, l Login, _ time.Time) Verdict {
	text, ok := c.Options[optionSource]
	if !ok {
		return deny(CertificateSource, "the certificate has no %s", optionSource)
	}
	sources, err := parseSources(text)
	if err != nil {
		return deny(CertificateSource, "%s %q: %v", optionSource, text, err)
	}
	if _, ok := listed(sources, l.Source); !ok {
		return deny(CertificateSource, "%s is not in the certificate's %s %q", l.Source, optionSource, text)
	}
	return allow("source")
}

// parseSources reads addresses and networks with commas between them, and nothing else.
func parseSources(text string) ([]netip.Prefix, error) {
	fields := strings.Split(text, ",")
	if len(fields) > maxSources {
		return nil, fmt.Errorf("more than %d networks", maxSources)
	}
	var list []netip.Prefix
	for _, field := range fields {
		prefix, err := netip.ParsePrefix(field)
		if err != nil {
			address, addrErr := netip.ParseAddr(field)
			if addrErr != nil || address.Zone() != "" {
				return nil, fmt.Errorf("%q is neither an address nor a network", field)
			}
			prefix = netip.PrefixFrom(address, address.BitLen())
		}
		if prefix.Addr().Is4In6() || prefix != prefix.Masked() || prefix.Bits() == 0 {
			return nil, fmt.Errorf("%q is not one network", field)
		}
		list = append(list, prefix)
	}
	return list, nil
}

// decideValidity compares seconds as the certificate has them: the largest mean "for ever".
func (p Policy) decideValidity(c *Certificate, _ Login, now time.Time) Verdict {
	longest := uint64(p.Certificates.Life().Std() / time.Second)
	at := now.Unix()
	switch {
	case at < 0 || c.ValidBefore <= c.ValidAfter || c.ValidBefore-c.ValidAfter > longest:
		return deny(CertificateLifetime, "the certificate is not valid for %s at most", p.Certificates.Life())
	case uint64(at) < c.ValidAfter:
		return deny(CertificateEarly, "the certificate is not valid yet")
	case uint64(at) >= c.ValidBefore:
		return deny(CertificateExpired, "the certificate has expired")
	}
	return allow("validity")
}

func (p Policy) checkCertificates() error {
	c := p.Certificates
	if len(c.Authorities) > maxAuthorities {
		return tomlfile.At("certificates.authorities", "remove those that are not used", "%d authorities: at most %d", len(c.Authorities), maxAuthorities)
	}
	for i, text := range c.Authorities {
		path := fmt.Sprintf("certificates.authorities[%d]", i)
		key, err := plainKey(text)
		if err != nil {
			return tomlfile.At(path, `the first two words of the authority's .pub file: "ssh-ed25519 AAAA…"`, "authority %d: %v", i+1, err)
		}
		if !MaySign(key.Type()) {
			return tomlfile.At(path, "make one with ssh-keygen -t ed25519-sk", "authority %d is of type %s", i+1, key.Type())
		}
		if slices.Contains(c.Authorities[:i], text) {
			return tomlfile.At(path, "each authority once", "authority %d is there twice", i+1)
		}
		for _, e := range p.Engineers {
			if slices.ContainsFunc(e.Keys, func(k Key) bool { return k.Public == text }) {
				return tomlfile.At(path, "an authority has a key of its own", "authority %d is a key of engineer %q", i+1, e.Name)
			}
		}
	}
	if d := c.MaxLife.Std(); d < 0 || d > MaxCertificateLife {
		return tomlfile.At("certificates.max_life", "leave it out for the default", "max_life is %s: at most %s", c.MaxLife, Duration(MaxCertificateLife))
	}
	return nil
}

// plainKey parses a public key in the one form in which keys are compared: "TYPE BASE64", no options, no comment, no certificate.
func plainKey(text string) (ssh.PublicKey, error) {
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("it is no public key")
	}
	if _, ok := key.(*ssh.Certificate); ok {
		return nil, fmt.Errorf("it is a certificate, not a key")
	}
	if strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))) != text {
		return nil, fmt.Errorf("it is not in the form \"TYPE BASE64\"")
	}
	return key, nil
}

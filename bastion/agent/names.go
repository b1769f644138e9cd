package agent

import (
	"bytes"
	"cmp"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/durable"
)

// Host is a host key and what known_hosts says of it.
type Host struct {
	Key     ssh.PublicKey // as the host showed it; nil: no host
	Names   []string      // by which known_hosts knows it; of a certificate the principals that a known authority may certify
	Known   bool          // known_hosts has the key, or the authority that certified it; the names may still be hashed
	Revoked bool
	fault   string // why a certificate counts for nothing
}

// String says it in words.
func (h Host) String() string {
	certificate, _ := h.Key.(*ssh.Certificate)
	var key string
	switch {
	case certificate == nil:
		key = "host key " + fingerprint(h.Key)
	case h.Known:
		key = "certificate of " + list(certificate.ValidPrincipals) + " by " + fingerprint(certificate.SignatureKey)
	default:
		key = "certificate that says " + list(certificate.ValidPrincipals) + ", not to be believed: " + h.fault
	}
	switch {
	case h.Revoked:
		return "a host whose key is revoked (" + key + ")"
	case len(h.Names) > 0:
		return shown(h.Names[0]) + " (" + key + ")"
	case h.Known:
		return "a known host whose name known_hosts hides (" + key + ")"
	}
	return "a host that known_hosts does not have (" + key + ")"
}

// list shows a few names.
func list(names []string) string {
	const most = 3
	var some []string
	for _, n := range names[:min(len(names), most)] {
		some = append(some, shown(n))
	}
	text := strings.Join(some, "/")
	switch {
	case len(names) == 0:
		return "no name"
	case len(names) > most:
		text += fmt.Sprintf("/… (%d)", len(names))
	}
	return text
}

// knownHosts finds names of host keys in files as ssh has them. They are read for each question: they are small, and change.
type knownHosts struct {
	files []string
	now   func() time.Time
}

// knownLine is one line of known_hosts.
type knownLine struct {
	marker string
	hosts  []string
	key    ssh.PublicKey
}

// lines of all files that can be read; one that cannot, and a line that ssh would not understand either, names nobody.
func (k knownHosts) lines() (all []knownLine) {
	for _, file := range k.files {
		data, err := durable.ReadFile(file, maxKnownHosts)
		if err != nil {
			continue
		}
		for line := range bytes.Lines(data) {
			marker, hosts, key, _, _, err := ssh.ParseKnownHosts(line)
			if err == nil {
				all = append(all, knownLine{marker, hosts, key})
			}
		}
	}
	return all
}

// resolve says who shows the key.
func (k knownHosts) resolve(key ssh.PublicKey) Host {
	h := Host{Key: key}
	certificate, isCertificate := key.(*ssh.Certificate)
	plain := key
	if isCertificate {
		plain = certificate.Key
		h.fault = k.fault(certificate)
	}
	authority := false
	for _, l := range k.lines() {
		same := func(other ssh.PublicKey) bool { return bytes.Equal(l.key.Marshal(), other.Marshal()) }
		switch {
		case l.marker == "revoked" && (same(plain) || isCertificate && same(certificate.SignatureKey)):
			h.Revoked = true
		case l.marker == "cert-authority" && isCertificate && same(certificate.SignatureKey):
			authority = true
			if h.fault == "" {
				h.Names = append(h.Names, certified(certificate.ValidPrincipals, l.hosts)...)
			}
		case l.marker == "" && !isCertificate && same(key):
			h.Known = true
			h.Names = append(h.Names, plainNames(l.hosts)...)
		}
	}
	if isCertificate {
		h.Known = h.fault == "" && authority && len(h.Names) > 0
		switch {
		case h.fault != "" || h.Known:
		case !authority:
			h.fault = "known_hosts has no such authority"
		default:
			h.fault = "its authority does not speak for these names"
		}
	}
	slices.SortFunc(h.Names, func(a, b string) int { // people know names, not addresses
		return cmp.Or(cmp.Compare(address(a), address(b)), strings.Compare(a, b))
	})
	h.Names = slices.Compact(h.Names)
	return h
}

// fault says what is wrong with a certificate by itself.
func (k knownHosts) fault(c *ssh.Certificate) string {
	checker := ssh.CertChecker{Clock: k.now}
	switch {
	case c.CertType != ssh.HostCert:
		return "it is no host's"
	case len(c.ValidPrincipals) == 0:
		return "it names nobody"
	case len(c.CriticalOptions) > 0:
		return "it has a critical option that nobody here understands" // and whose name is anybody's
	}
	if err := checker.CheckCert(c.ValidPrincipals[0], c); err != nil {
		return strings.TrimPrefix(err.Error(), "ssh: ")
	}
	return ""
}

// certified are the principals that a line's patterns let its authority certify.
func certified(principals, patterns []string) (names []string) {
	for _, p := range principals {
		found := false
		for _, pattern := range patterns {
			pattern, negated := strings.CutPrefix(pattern, "!")
			pattern = withoutPort(pattern)
			if matched, err := path.Match(pattern, p); err == nil && matched || pattern == "*" {
				if negated {
					found = false
					break
				}
				found = true
			}
		}
		if found {
			names = append(names, p)
		}
	}
	return names
}

// plainNames are those of a line that are names, not patterns and not hashes.
func plainNames(hosts []string) (names []string) {
	for _, h := range hosts {
		if !strings.HasPrefix(h, "|") && !strings.HasPrefix(h, "!") && !strings.ContainsAny(h, "*?") {
			names = append(names, h)
		}
	}
	return names
}

// address is 1 for an IP address or a name with a port, 0 for a plain name.
func address(name string) int {
	if _, err := netip.ParseAddr(name); err == nil || strings.HasPrefix(name, "[") {
		return 1
	}
	return 0
}

// withoutPort: a certificate's principals have no port, known_hosts' patterns may.
func withoutPort(pattern string) string {
	if rest, ok := strings.CutPrefix(pattern, "["); ok {
		if name, _, ok := strings.Cut(rest, "]:"); ok {
			return name
		}
	}
	return pattern
}

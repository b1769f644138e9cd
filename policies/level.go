package policies

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/tomlfile"
)

// Level is an SSH algorithm level: "pq-preferred" or "pq-only".
type Level string

// SSH algorithm levels of the bastion's own hop.
const (
	PQPreferred Level = "pq-preferred" // post-quantum key exchange first, X25519 for clients that do not have it
	PQOnly      Level = "pq-only"      // post-quantum key exchange or nothing
)

// Algorithms is what an SSH server of a level offers and accepts, in order of preference. No list is ever empty: to the
// library an empty list means its own defaults.
type Algorithms struct {
	KeyExchanges []string
	Ciphers      []string
	MACs         []string // AES-GCM needs none; libraries ask for a list all the same
	HostKeys     []string // signature algorithms of the host key and of its certificate
	PublicKeys   []string // users' signature algorithms
}

// Algorithms returns the level's lists. It knows no level but the named ones.
func (l Level) Algorithms() (Algorithms, error) {
	a := Algorithms{
		KeyExchanges: []string{kexMLKEM},
		Ciphers:      []string{aes256GCM, aes128GCM},
		MACs:         []string{macSHA512, macSHA256},
		HostKeys:     []string{edHostCert, edHost},
		PublicKeys:   slices.Concat(securityKeyTypes, cardKeyTypes),
	}
	switch l {
	case PQOnly:
		return a, nil
	case PQPreferred:
		a.KeyExchanges = append(a.KeyExchanges, kexX25519, oldX25519)
		return a, nil
	}
	return Algorithms{}, fmt.Errorf("unknown SSH level %q", string(l))
}

// Algorithms returns the level's lists, or the policy's own parts of them in the policy's order.
func (s SSH) Algorithms() (Algorithms, error) {
	a, err := s.Level.Algorithms()
	if err != nil {
		return Algorithms{}, err
	}
	if err := s.checkAlgorithms(); err != nil {
		return Algorithms{}, err
	}
	for _, l := range s.lists(&a) {
		if l.own != nil {
			*l.all = slices.Clone(l.own)
		}
	}
	return a, nil
}

// Algorithms returns the lists of the policy's [ssh], without the types of cards' keys that nobody has enrolled, unless the policy names
// them: a type that software can hold as well is offered only where it has to be.
func (p Policy) Algorithms() (Algorithms, error) {
	a, err := p.SSH.Algorithms()
	if err != nil || p.SSH.UserKeys != nil {
		return a, err
	}
	has := map[string]bool{}
	p.eachKey(func(_ string, k Key) { has[keyType(k.Public)] = true })
	a.PublicKeys = slices.DeleteFunc(slices.Clone(a.PublicKeys), func(name string) bool { return slices.Contains(cardKeyTypes, name) && !has[name] })
	return a, nil
}

// ownList is a policy's own part of one of a level's lists.
type ownList struct {
	key string
	own []string // nil: left out
	all *[]string
}

func (s SSH) lists(a *Algorithms) []ownList {
	return []ownList{
		{"key_exchanges", s.KeyExchanges, &a.KeyExchanges}, {"ciphers", s.Ciphers, &a.Ciphers}, {"macs", s.MACs, &a.MACs},
		{"host_keys", s.HostKeys, &a.HostKeys}, {"user_keys", s.UserKeys, &a.PublicKeys},
	}
}

// checkAlgorithms refuses an unknown level, and a list of its own that is empty, which libraries take for their defaults, or names
// what the level does not have.
func (s SSH) checkAlgorithms() error {
	a, err := s.Level.Algorithms()
	if err != nil {
		return tomlfile.At("ssh.level", `level = "pq-preferred" or "pq-only"`, "%v", err)
	}
	for _, l := range s.lists(&a) {
		all := strings.Join(*l.all, ", ")
		if l.own != nil && len(l.own) == 0 {
			return tomlfile.At("ssh."+l.key, "leave it out for all of "+all, "ssh.%s is empty, which would mean a library's own defaults", l.key)
		}
		for i, name := range l.own {
			at := fmt.Sprintf("ssh.%s[%d]", l.key, i)
			switch {
			case slices.Contains(l.own[:i], name):
				return tomlfile.At(at, "each name once", "ssh.%s has %q twice", l.key, name)
			case slices.Contains(*l.all, name):
			case knownAlgorithm(name):
				return tomlfile.At(at, "level "+string(s.Level)+" has "+all, "ssh.%s has %q, which is too weak for level %q", l.key, name, s.Level)
			default:
				return tomlfile.At(at, "level "+string(s.Level)+" has "+all, "ssh.%s has %q, which is unknown", l.key, name)
			}
		}
	}
	return nil
}

// knownAlgorithm reports whether SSH libraries know a name, so that a weak one can be told from a misspelt one.
func knownAlgorithm(name string) bool {
	for _, a := range []ssh.Algorithms{ssh.SupportedAlgorithms(), ssh.InsecureAlgorithms()} {
		for _, list := range [][]string{a.KeyExchanges, a.Ciphers, a.MACs, a.HostKeys, a.PublicKeyAuths} {
			if slices.Contains(list, name) {
				return true
			}
		}
	}
	return false
}

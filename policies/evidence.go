package policies

import (
	"slices"
	"strings"
)

// evidence returns the test root that vouches for the key. There is no other evidence yet.
func (p Policy) evidence(k Key) (root string, ok bool) {
	root, ok = strings.CutPrefix(k.Evidence, testEvidence)
	if !ok || root == "" || !slices.Contains(p.Hardware.TestRoots, root) {
		return "", false
	}
	return root, true
}

// Enrolled returns the key with this public half, "TYPE BASE64", of the engineer or break-glass identity.
func (p Policy) Enrolled(name, public string) (Key, bool) {
	for _, e := range p.Engineers {
		for _, k := range e.Keys {
			if e.Name == name && k.Public == public {
				return k, true
			}
		}
	}
	b, _ := p.glass(name)
	for _, k := range b.Keys {
		if k.Public == public {
			return k, true
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

package policies

import (
	"fmt"
	"slices"
	"strings"
)

// Evidence is what is known of the hardware that holds a key. Its zero value proves nothing.
type Evidence struct {
	Kind             string // "test": a software authenticator's
	Name             string // of the test root
	Test             bool   // counts in a fleet with test = true only
	Touch            bool   // no signature without a touch
	UserVerification bool   // no signature without PIN or biometry, enforced by the hardware
	Serial           string // of the authenticator, where the evidence names it
}

// withUserVerification follows a test root whose keys are taken to enforce user verification.
const withUserVerification = "+uv"

// Evidence is the one place that decides what a key's evidence proves. ok is false for evidence that is not accepted here.
func (p Policy) Evidence(k Key) (e Evidence, ok bool) {
	root, ok := strings.CutPrefix(k.Evidence, testEvidence)
	if !ok {
		return Evidence{}, false
	}
	root, verified := strings.CutSuffix(root, withUserVerification)
	if root == "" || !slices.Contains(p.Hardware.TestRoots, root) {
		return Evidence{}, false
	}
	return Evidence{Kind: "test", Name: root, Test: true, Touch: true, UserVerification: verified}, true
}

func (e Evidence) String() string {
	text := fmt.Sprintf("%s root %s", e.Kind, e.Name)
	if e.UserVerification {
		text += " with user verification"
	}
	return text
}

// accept decides on an enrolled key of somebody: its evidence, what the policy asks of it, and the revocation list.
func (p Policy) accept(name string, k Key) Verdict {
	e, ok := p.Evidence(k)
	revoked := p.Certificates.KRL.key(k.Public)
	switch {
	case revoked != "":
		return deny(KeyRevoked, "a key of %s is on the revocation list, by %s", name, revoked)
	case !hardwareKey(k.Public):
		return deny(KeyNotHardware, "a key of %s that software can hold", name)
	case !ok:
		return deny(KeyNoEvidence, "evidence %q of %s is not accepted", k.Evidence, name)
	case !e.Touch:
		return deny(KeyNoEvidence, "evidence %q of %s does not prove touch", k.Evidence, name)
	case p.SSH.VerifyRequired && !e.UserVerification:
		return deny(KeyNoUserVerification, "evidence %q of %s does not prove user verification", k.Evidence, name)
	}
	return allow("%s, %s", name, e)
}

// Enrolled returns the engineer's, or break-glass identity's, key with this public half, "TYPE BASE64".
func (p Policy) Enrolled(name, public string) (Key, bool) {
	a := p.find(name, public)
	return a.key, a.enrolled
}

// IsTestEvidence reports whether a key's evidence is a software authenticator's.
func IsTestEvidence(evidence string) bool { return strings.HasPrefix(evidence, testEvidence) }

// hardwareKey reports whether a key, "TYPE BASE64", is of a type that only hardware holds.
func hardwareKey(public string) bool { return hardwareType(keyType(public)) }

func hardwareType(name string) bool { return name == skEd25519 || name == skECDSA }

func keyType(public string) string {
	name, _, _ := strings.Cut(public, " ")
	return name
}

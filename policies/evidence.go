package policies

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/bastion/hardkey"
	"mayfly/inventory"
)

// KindTest is the kind of a proof by a test root: a software authenticator's, in a fleet with test = true.
const KindTest = "test"

const (
	testEvidence         = "test:"
	withUserVerification = "+uv" // follows a test root whose keys are taken to enforce user verification
)

// Types of keys that evidence can be about. A security key's type says by itself that hardware holds it; a card's does not, and counts
// only beside its evidence.
var (
	securityKeyTypes = hardkey.KeyTypes(hardkey.KindFIDO2)
	cardKeyTypes     = hardkey.KeyTypes(hardkey.KindPIV)
)

// enrolled names a key of somebody.
type enrolled struct{ name, public string }

// verified is what came of one key's evidence.
type verified struct {
	shown    hardkey.Shown
	proof    hardkey.Proof
	rejected *hardkey.Rejection
}

// Verified is the policy with the evidence of all its keys verified for this fleet at a time. That is done once, when a policy is loaded, so
// that no login waits for it and none shows by its time who is enrolled. In a policy that was not verified, only test roots prove anything.
// A PIV card is one person's: grants, approvals and openings count people, and one who holds the cards of two would be two. Who comes first in
// the policy has it. It never fails: a key whose evidence is rejected keeps its owner out, and the others go on.
func (p Policy) Verified(f inventory.Fleet, now time.Time) Policy {
	rules := p.rules(f)
	proven := map[enrolled]verified{}
	cards := map[uint32]string{} // whose each serial number is
	p.eachKey(func(name string, k Key) {
		if k.kind() == KindTest {
			return
		}
		v := verified{shown: k.Shown()}
		v.proof, v.rejected = hardkey.Verify(f.Name, name, k.Public, v.shown, rules, now)
		if owner, ok := cards[v.proof.Serial]; ok && v.rejected == nil && v.proof.Serial != 0 && owner != name {
			v.rejected = cardShared(v.proof.Serial, owner)
		} else if v.rejected == nil {
			cards[v.proof.Serial] = name
		}
		proven[enrolled{name, k.Public}] = v
	})
	p.proven = nil
	if len(proven) > 0 {
		p.proven = proven
	}
	return p
}

// OnCardOf says who else has a key on the card that an enrolled key of somebody is on, whichever of them the card counts for.
func (p Policy) OnCardOf(name string, k Key) (other string, shared bool) {
	serial := p.proven[enrolled{name, k.Public}].proof.Serial
	for e, v := range p.proven {
		if serial != 0 && v.proof.Serial == serial && e.name != name && (!shared || e.name < other) {
			other, shared = e.name, true
		}
	}
	return other, shared
}

func cardShared(serial uint32, owner string) *hardkey.Rejection {
	return &hardkey.Rejection{Reason: string(KeyCardShared), Text: fmt.Sprintf("the card with serial number %d is %s's", serial, owner),
		Mend: "enrol a key of a card that nobody else has, or take " + owner + "'s keys on this one away first"}
}

// rules is what the policy asks of keys in hardware.
func (p Policy) rules(f inventory.Fleet) hardkey.Rules {
	h := p.Hardware
	return hardkey.Rules{
		Slots: h.Slots, PINPolicies: h.PINPolicies, MinFirmware: h.MinFirmware, SerialsAllow: h.SerialsAllow, SerialsDeny: h.SerialsDeny,
		AAGUIDs: h.AAGUIDs, VerifyRequired: p.SSH.VerifyRequired, FIDO2Issuers: h.FIDO2Issuers,
		TestIssuers: h.TestIssuers, Test: f.Test,
	}
}

// eachKey is called for the keys of engineers and of break-glass identities, in the order of the policy.
func (p Policy) eachKey(f func(name string, k Key)) {
	for _, e := range p.Engineers {
		for _, k := range e.Keys {
			f(e.Name, k)
		}
	}
	for _, b := range p.BreakGlass {
		for _, k := range b.Keys {
			f(b.Name, k)
		}
	}
}

// Proof is the one place that decides what the evidence of somebody's key proves. The verdict says why it is not accepted; it is about the
// evidence alone, and not yet about what else the policy asks.
func (p Policy) Proof(name string, k Key) (hardkey.Proof, Verdict) {
	switch k.kind() {
	case KindTest:
		root, uv := strings.CutSuffix(strings.TrimPrefix(k.Evidence, testEvidence), withUserVerification)
		if root == "" || !slices.Contains(p.Hardware.TestRoots, root) {
			return hardkey.Proof{}, deny(KeyNoEvidence, "evidence %q of %s is not accepted", k.Evidence, name)
		}
		return hardkey.Proof{Kind: KindTest, Issuer: root, Test: true, Touch: true, UserVerification: uv}, allow("%s", k.Evidence)
	case hardkey.KindPIV, hardkey.KindFIDO2:
		v, looked := p.proven[enrolled{name, k.Public}]
		switch {
		case !looked || !v.of(k):
			return hardkey.Proof{}, deny(KeyNoEvidence, "evidence %q of %s was not verified", k.Evidence, name)
		case v.rejected != nil:
			return hardkey.Proof{}, deny(Reason(v.rejected.Reason), "a key of %s: %s", name, v.rejected.Text)
		case v.proof.Kind != k.Evidence:
			return hardkey.Proof{}, deny(KeyNoEvidence, "evidence %q of %s proves something else", k.Evidence, name)
		}
		return v.proof, allow("%s", EvidenceText(k, v.proof))
	}
	return hardkey.Proof{}, deny(KeyNoEvidence, "evidence %q of %s is not accepted", k.Evidence, name)
}

// of reports whether this came of the key's evidence as it stands there now.
func (v verified) of(k Key) bool {
	s := k.Shown()
	return v.shown.Kind == s.Kind && v.shown.Challenge == s.Challenge && v.shown.Signature == s.Signature && slices.Equal(v.shown.Attestation, s.Attestation)
}

// accept decides on an enrolled key of somebody: its evidence, what the policy asks of it, and what is revoked.
func (p Policy) accept(name string, k Key) Verdict {
	proof, v := p.Proof(name, k)
	revoked := p.revokedKey(k.Public)
	switch {
	case revoked != "":
		return deny(KeyRevoked, "a key of %s is revoked, by %s", name, revoked)
	case !k.fits():
		return deny(KeyNotHardware, "a key of %s that software can hold", name)
	case !v.Allow:
		return v
	case !proof.Touch:
		return deny(KeyNoEvidence, "evidence %q of %s does not prove touch", k.Evidence, name)
	case p.SSH.VerifyRequired && !proof.UserVerification:
		return deny(KeyNoUserVerification, "evidence %q of %s does not prove user verification", k.Evidence, name)
	}
	return allow("%s, %s", name, v.Detail)
}

// Accept decides on an enrolled key of somebody, for who lists keys. A login asks for more.
func (p Policy) Accept(name string, k Key) Verdict { return p.accept(name, k) }

// revokedKey says how a key is revoked.
func (p Policy) revokedKey(public string) string {
	if p.revokedForGood(public) {
		return "hardware.revoked"
	}
	if how := p.Certificates.KRL.key(public); how != "" {
		return "the revocation list, " + how
	}
	return ""
}

// revokedForGood reports whether a key may never come back, enrolled or not.
func (p Policy) revokedForGood(public string) bool {
	return len(p.Hardware.Revoked) > 0 && slices.Contains(p.Hardware.Revoked, Fingerprint(public))
}

// Rejected is an enrolled key that lets nobody in.
type Rejected struct {
	Name        string `json:"name"` // whose
	Fingerprint string `json:"fingerprint"`
	Evidence    string `json:"evidence"`
	Reason      Reason `json:"reason"`
	Detail      string `json:"detail"`
	Mend        string `json:"mend,omitempty"` // what its owner can do
}

// Rejected lists the enrolled keys that let nobody in, with why.
func (p Policy) Rejected() []Rejected {
	list := []Rejected{}
	p.eachKey(func(name string, k Key) {
		if v := p.accept(name, k); !v.Allow {
			list = append(list, Rejected{Name: name, Fingerprint: Fingerprint(k.Public), Evidence: k.Evidence, Reason: v.Reason, Detail: v.Detail, Mend: p.Mend(name, k)})
		}
	})
	return list
}

// Mend says what its owner can do about a key whose evidence is rejected; empty where there is nothing to say.
func (p Policy) Mend(name string, k Key) string {
	if v, looked := p.proven[enrolled{name, k.Public}]; looked && v.rejected != nil {
		return v.rejected.Mend
	}
	return ""
}

// Enrolled returns the engineer's, or break-glass identity's, key with this public half, "TYPE BASE64".
func (p Policy) Enrolled(name, public string) (Key, bool) {
	a := p.find(name, public)
	return a.key, a.enrolled
}

// Shown is what was shown for the key when it was enrolled.
func (k Key) Shown() hardkey.Shown {
	return hardkey.Shown{Kind: k.Evidence, Challenge: k.Challenge, Attestation: k.Attestation, Signature: k.Signature}
}

// kind of the key's evidence: "test", "piv" or "fido2"; anything else is none.
func (k Key) kind() string {
	if strings.HasPrefix(k.Evidence, testEvidence) {
		return KindTest
	}
	return k.Evidence
}

// IsTest reports whether the evidence is a test root's.
func (k Key) IsTest() bool { return k.kind() == KindTest }

// types that the key may have: those that its evidence can be about.
func (k Key) types() []string {
	if k.kind() == hardkey.KindPIV {
		return cardKeyTypes
	}
	return securityKeyTypes
}

// fits reports whether the key is of a type that its evidence can be about. A type that any software can hold is, beside a card's evidence.
func (k Key) fits() bool { return slices.Contains(k.types(), keyType(k.Public)) }

// securityKey reports whether a key, "TYPE BASE64", is of a type that only hardware holds.
func securityKey(public string) bool { return slices.Contains(securityKeyTypes, keyType(public)) }

func keyType(public string) string {
	name, _, _ := strings.Cut(public, " ")
	return name
}

// Fingerprint of a key, "TYPE BASE64", as ssh-keygen -l prints it; empty for what is no key.
func Fingerprint(public string) string {
	key, err := plainKey(public)
	if err != nil {
		return ""
	}
	return ssh.FingerprintSHA256(key)
}

// EvidenceText says in one line what a key's evidence is, for audit records and tables: which hardware, and how it asks.
func EvidenceText(k Key, proof hardkey.Proof) string {
	switch proof.Kind {
	case hardkey.KindPIV:
		return fmt.Sprintf("piv, serial %d, firmware %s, slot %s, touch %s, pin %s, by %s", proof.Serial, proof.Firmware, proof.Slot, touchText(proof), proof.PINPolicy, proof.Issuer)
	case hardkey.KindFIDO2:
		verification := "not proven"
		if proof.UserVerification {
			verification = "required"
		}
		return fmt.Sprintf("fido2, aaguid %s, application %+q, touch %s, user verification %s, by %s", proof.AAGUID, proof.Application, touchText(proof), verification, proof.Issuer)
	}
	return k.Evidence
}

func touchText(proof hardkey.Proof) string {
	if proof.Touch {
		return "always"
	}
	return "not proven"
}

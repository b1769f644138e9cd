package trust

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"mayfly/bastion/hardkey"
)

// keyTypes that people's keys may have: what PIV cards and FIDO2 authenticators make. A software key of such a type has nothing to show.
var keyTypes = slices.Concat(hardkey.KeyTypes(hardkey.KindFIDO2), hardkey.KeyTypes(hardkey.KindPIV))

// Rules are what evidence is held against.
func (t *Trust) Rules() hardkey.Rules {
	h := t.Hardware
	return hardkey.Rules{Slots: h.Slots, PINPolicies: h.PINPolicies, MinFirmware: h.MinFirmware, SerialsAllow: h.SerialsAllow, SerialsDeny: h.SerialsDeny,
		AAGUIDs: h.AAGUIDs, VerifyRequired: h.VerifyRequired, FIDO2Issuers: h.FIDO2Issuers, TestIssuers: h.TestIssuers, Test: t.Test}
}

// ShownFor is what was shown for a person's i-th key; the zero value where nothing was.
func (p Person) ShownFor(i int) hardkey.Shown {
	if i < 0 || i >= len(p.Shown) {
		return hardkey.Shown{}
	}
	return p.Shown[i]
}

// Prove verifies what was shown for a person's i-th key. It is judged at the time of its challenge: a trust policy that was good stays good when
// a certificate in it ends, or nothing could be signed any more, not even the policy that replaces it.
func (t *Trust) Prove(p Person, i int) (hardkey.Proof, *hardkey.Rejection) {
	shown := p.ShownFor(i)
	var made time.Time
	if c, err := hardkey.ParseChallenge(shown.Challenge); err == nil {
		made = c.Made
	}
	return hardkey.Verify(t.Fleet, p.Name, p.Keys[i], shown, t.Rules(), made)
}

// CardShared is the reason that package policies has as well.
const CardShared = "key_card_shared"

// cards are the PIV cards that were met, by serial number, and whose they are.
type cards map[uint32]string

// checkEvidence asks of each key of a person a type that hardware makes and, unless it is a test fleet's key for which nothing was shown, evidence
// that verifies. One card belongs to one person in one role: who loses it loses one voice.
func (t *Trust) checkEvidence(p Person, role string, met cards) error {
	if len(p.Shown) != 0 && len(p.Shown) != len(p.Keys) {
		return fmt.Errorf("%s %s: evidence for %d keys, of which there are %d", role, p.Name, len(p.Shown), len(p.Keys))
	}
	if len(p.Shown) > 0 && !slices.ContainsFunc(p.Shown, isShown) {
		return fmt.Errorf("%s %s: empty evidence is left out", role, p.Name)
	}
	for i, line := range p.Keys {
		where := fmt.Sprintf("%s %s, key %d", role, p.Name, i+1)
		if kind, _, _ := strings.Cut(line, " "); !slices.Contains(keyTypes, kind) {
			return fmt.Errorf("%s: %s: no PIV card or FIDO2 authenticator makes a key of type %s", where, hardkey.KeyType, kind)
		}
		if t.Test && p.ShownFor(i).Kind == "" {
			if isShown(p.ShownFor(i)) {
				return fmt.Errorf("%s: %s: evidence of no kind", where, hardkey.Kind)
			}
			continue
		}
		if p.ShownFor(i).Kind == "" {
			return fmt.Errorf("%s: %s: nothing was shown for it, and test is false", where, hardkey.Missing)
		}
		proof, rejected := t.Prove(p, i)
		if rejected != nil {
			return fmt.Errorf("%s: %s: %w", where, rejected.Reason, rejected)
		}
		if proof.Test && !t.Test {
			return fmt.Errorf("%s: %s: its evidence is of software, and test is false", where, hardkey.TestIssuer)
		}
		if owner, ok := met[proof.Serial]; ok && proof.Serial != 0 && owner != role+" "+p.Name {
			return fmt.Errorf("%s: %s: the card with serial number %d is also %s's", where, CardShared, proof.Serial, owner)
		}
		met[proof.Serial] = role + " " + p.Name
	}
	return nil
}

func isShown(s hardkey.Shown) bool {
	return s.Kind != "" || s.Challenge != "" || len(s.Attestation) > 0 || s.Signature != ""
}

// checkRecovery asks for as many recovery people as must sign, each with keys that nobody else has. A fleet that is no test has some:
// without, it ends with the threshold of its approvers.
func (t *Trust) checkRecovery(owners map[string]string, met cards) error {
	r := t.Recovery
	if len(r.People) > MaxRecovery {
		return fmt.Errorf("%d recovery people: at most %d", len(r.People), MaxRecovery)
	}
	if r.Threshold < 0 || r.Threshold > len(r.People) || r.Threshold == 0 && len(r.People) > 0 {
		return fmt.Errorf("recovery threshold is %d of %d people", r.Threshold, len(r.People))
	}
	if r.Threshold == 0 && !t.Test {
		return errors.New("recovery threshold is 0, and test is false")
	}
	return t.checkNamed(r.People, "recovery", owners, met)
}

// checkNamed checks a list of people whose keys live in hardware.
func (t *Trust) checkNamed(people []Person, role string, owners map[string]string, met cards) error {
	names := map[string]bool{}
	for _, p := range people {
		if err := checkName(p.Name); err != nil {
			return fmt.Errorf("%s: %w", role, err)
		}
		if names[p.Name] {
			return fmt.Errorf("%s %q is there twice", role, p.Name)
		}
		names[p.Name] = true
		if err := checkKeys(p.Keys, role+" "+p.Name, owners); err != nil {
			return err
		}
		if err := t.checkEvidence(p, role, met); err != nil {
			return err
		}
	}
	return nil
}

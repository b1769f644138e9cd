package hardkey

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"mayfly/internal/sshsig"
)

// slotName begins the subject of every slot certificate that a card makes.
const slotName = "YubiKey PIV Attestation "

// piv verifies the slot certificate, which the card made for a key that it had made itself, and the device certificate, with
// which the maker says that the card is its own.
func (p *Proof) piv(k key, s Shown, c Challenge, r rules, now time.Time) *Rejection {
	slot, device, rejection := s.certificates()
	if rejection != nil {
		return rejection
	}
	by, rejection := r.issuerOf(device, KindPIV)
	if rejection != nil {
		return rejection
	}
	p.Issuer, p.Test = by.name, by.test
	if rejection := made(slot, device); rejection != nil {
		return rejection
	}
	if rejection := current(now, slot, device, by.certificate); rejection != nil {
		return rejection
	}
	if !k.equals(slot.PublicKey) {
		return reject(KeyDiffers, "enrol again with bastion-agent enroll; a key that was made anew in the slot needs a new attestation",
			"the attestation is of another key than the one to be enrolled")
	}
	if rejection := p.policies(slot, device, r); rejection != nil {
		return rejection
	}
	return answered(k, s, c)
}

// certificates of a PIV key: the slot's and the device's.
func (s Shown) certificates() (slot, device *x509.Certificate, rejection *Rejection) {
	if len(s.Attestation) != 2 {
		return nil, nil, malformed("attestation", "%d certificates, not 2: the slot's and the device's (f9)", len(s.Attestation))
	}
	if slot, rejection = parseCertificate("attestation[0]", s.Attestation[0]); rejection != nil {
		return nil, nil, rejection
	}
	device, rejection = parseCertificate("attestation[1]", s.Attestation[1])
	return slot, device, rejection
}

// made asks that the device itself made the slot certificate. A device certificate is an authority's, or says nothing of it.
func made(slot, device *x509.Certificate) *Rejection {
	if device.BasicConstraintsValid && !device.IsCA {
		return reject(Chain, "enrol again with bastion-agent enroll", "the certificate of %q is not one with which a card attests", clip(device.Subject.CommonName))
	}
	if signed(device, slot) {
		return nil
	}
	if _, rejection := extension(slot, oidPolicies, "policies"); rejection != nil || !strings.HasPrefix(slot.Subject.CommonName, slotName) {
		return reject(Imported, "make a key on the card (bastion-agent setup) and enrol that",
			"the slot certificate (%q, by %q) is an ordinary one: no card made it. A card attests only keys that it made itself, never one that was imported",
			clip(slot.Subject.CommonName), clip(slot.Issuer.CommonName))
	}
	return reject(Chain, "enrol again with one card in the reader", "the slot certificate was not made by the card whose device certificate came with it")
}

// answer is a PIV key's signature over its challenge.
func (s Shown) answer() (*sshsig.Signature, *Rejection) {
	blob, err := decode(s.Signature, maxSignature)
	if err != nil {
		return nil, malformed("signature", "%v", err)
	}
	sig, err := sshsig.ParseBlob(blob)
	if err != nil {
		return nil, malformed("signature", "%v", err)
	}
	return sig, nil
}

// answered asks for the challenge signed by the key itself: whoever enrols it can use it, and wanted this fleet and person.
func answered(k key, s Shown, c Challenge) *Rejection {
	const mend = "answer the challenge again with bastion-agent enroll"
	sig, rejection := s.answer()
	if rejection != nil {
		return rejection
	}
	if string(sig.Key().Marshal()) != string(k.ssh.Marshal()) {
		return reject(Signature, mend, "another key answered the challenge")
	}
	if err := sig.Verify(Namespace, c.Signed()); err != nil {
		return reject(Signature, mend, "the key's answer to the challenge is not good: %s", clip(err.Error()))
	}
	return nil
}

// Where the two certificates are shown.
const (
	slotField   = "attestation[0]"
	deviceField = "attestation[1]"
)

// policies reads what the card says of the key and holds it against the rules.
func (p *Proof) policies(slot, device *x509.Certificate, r rules) *Rejection {
	name, ok := strings.CutPrefix(slot.Subject.CommonName, slotName)
	if !ok || !slices.Contains(slots, name) || len(slot.Subject.Names) != 1 {
		return reject(Slot, "enrol again with bastion-agent enroll", "the slot certificate names no slot: its subject is %q", clip(slot.Subject.String()))
	}
	fw, rejection := firmware(slotField, slot)
	if rejection != nil {
		return rejection
	}
	deviceFW, rejection := firmware(deviceField, device)
	if rejection != nil {
		return rejection
	}
	number, rejection := serial(slotField, slot)
	if rejection != nil {
		return rejection
	}
	policies, rejection := sized(slotField, slot, oidPolicies, "PIN and touch policies", 2)
	if rejection != nil {
		return rejection
	}
	form, rejection := formFactor(slotField, slot)
	if rejection != nil {
		return rejection
	}
	pin, ok := pinPolicies[policies[0]]
	if !ok {
		pin = fmt.Sprintf("unknown (0x%02x)", policies[0])
	}
	p.Slot, p.Firmware, p.Serial, p.FormFactor, p.PINPolicy = name, fw.String(), number, form, pin
	p.Touch, p.UserVerification = policies[1] == touchAlways, ok && pin != pinPolicies[1]
	return p.keeps(policies[1], fw, deviceFW, r)
}

// keeps holds what was proved of a PIV key against the rules.
func (p *Proof) keeps(touch byte, fw, deviceFW version, r rules) *Rejection {
	const anew = "make a new key with bastion-agent setup; policies of a key never change"
	const other = "use another card"
	switch {
	case !slices.Contains(r.Slots, p.Slot):
		return reject(Slot, "make the key in another slot (bastion-agent setup), or list this one in [hardware] slots", "keys in slot %s do not count; those in %s do", p.Slot, strings.Join(r.Slots, ", "))
	case touch == touchNever:
		return reject(TouchNever, anew, "the key signs without a touch (touch policy Never), so whoever controls the computer can use it at any time")
	case touch == touchCached:
		return reject(TouchCached, anew, "one touch lets the key sign for 15 seconds (touch policy Cached), so whoever controls the computer can use it in that time")
	case touch != touchAlways:
		return malformed(slotField, "touch policy 0x%02x, which nobody knows", touch)
	case !slices.Contains(r.PINPolicies, p.PINPolicy):
		return reject(PINPolicy, anew, "PIN policy %s does not count; %s does", p.PINPolicy, strings.Join(r.PINPolicies, ", "))
	case r.VerifyRequired && !p.UserVerification:
		return reject(PINPolicy, anew, "the key signs without a PIN (PIN policy %s), and the fleet asks for user verification", p.PINPolicy)
	case fw.before(r.floor):
		return reject(Firmware, other, "the card has firmware %s; the fleet asks for %s or later", fw, r.floor)
	case deviceFW.before(r.floor):
		return reject(Firmware, other, "the device certificate is of a card with firmware %s; the fleet asks for %s or later", deviceFW, r.floor)
	case slices.Contains(r.SerialsDeny, p.Serial):
		return reject(SerialDenied, other, "the card with serial number %d is on the fleet's list of refused ones", p.Serial)
	case len(r.SerialsAllow) > 0 && !slices.Contains(r.SerialsAllow, p.Serial):
		return reject(SerialNotListed, "add its serial number to [hardware] serials_allow if the card is the fleet's", "the card with serial number %d is not on the fleet's list", p.Serial)
	}
	return nil
}

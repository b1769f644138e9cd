package pivcard

import (
	"fmt"
	"slices"
	"strings"
)

// Algorithms (SP 800-78-4, table 6-2; Yubico's from 5.7 on).
const (
	algorithm3DES    = 0x03
	algorithmRSA3072 = 0x05
	algorithmRSA1024 = 0x06
	algorithmRSA2048 = 0x07
	algorithmAES128  = 0x08
	algorithmAES192  = 0x0A
	algorithmAES256  = 0x0C
	algorithmP256    = 0x11
	algorithmP384    = 0x14
	algorithmRSA4096 = 0x16
	algorithmEd25519 = 0xE0
	algorithmX25519  = 0xE1
)

// algorithmNames are those of keys in slots.
var algorithmNames = map[byte]string{
	algorithmRSA1024: "rsa1024", algorithmRSA2048: "rsa2048", algorithmRSA3072: "rsa3072", algorithmRSA4096: "rsa4096",
	algorithmP256: "p256", algorithmP384: "p384", algorithmEd25519: "ed25519", algorithmX25519: "x25519",
}

// algorithmOf is the number of a name.
func algorithmOf(name string) (byte, error) {
	for number, n := range algorithmNames {
		if n == name {
			return number, nil
		}
	}
	return 0, fmt.Errorf("algorithm %q: want p256, p384, ed25519, x25519, rsa1024, rsa2048, rsa3072 or rsa4096", name)
}

func (f Firmware) hasAlgorithm(a byte) bool {
	switch a {
	case algorithmP256, algorithmP384, algorithmRSA1024, algorithmRSA2048:
		return true
	case algorithmRSA3072, algorithmRSA4096, algorithmEd25519, algorithmX25519:
		return f.has(firmwareMove)
	}
	return false
}

// PINPolicy is when a key needs the PIN.
type PINPolicy byte

// TouchPolicy is when a key needs a touch.
type TouchPolicy byte

// Specification constants (Yubico's PIV extensions).
const (
	PINNever  PINPolicy = 1
	PINOnce   PINPolicy = 2
	PINAlways PINPolicy = 3

	TouchNever  TouchPolicy = 1
	TouchAlways TouchPolicy = 2
	TouchCached TouchPolicy = 3

	slotAuthentication = 0x9A
	slotSignature      = 0x9C
	slotKeyManagement  = 0x9D
	slotCard           = 0x9E
	slotRetiredFirst   = 0x82
	slotRetiredLast    = 0x95
	slotAttestation    = 0xF9
	slotNone           = 0xFF // MOVE KEY's destination that deletes
	tagGenerate        = 0xAC
	tagAlgorithm       = 0x80
	tagPINPolicy       = 0xAA
	tagTouchPolicy     = 0xAB
	tagPublic          = 0x7F49
)

var pinPolicyNames, touchPolicyNames = []string{"default", "never", "once", "always"}, []string{"default", "never", "always", "cached"}

func (p PINPolicy) String() string   { return nameOf(pinPolicyNames, byte(p)) }
func (p TouchPolicy) String() string { return nameOf(touchPolicyNames, byte(p)) }

func nameOf(names []string, n byte) string {
	if int(n) < len(names) {
		return names[n]
	}
	return fmt.Sprintf("%#02x", n)
}

// policyOf is the number of a policy's name; "" is the slot's default.
func policyOf(names []string, name string) (byte, error) {
	if name == "" {
		return 0, nil
	}
	i := slices.Index(names, name)
	if i < 0 {
		return 0, fmt.Errorf("policy %q: want %s", name, strings.Join(names, ", "))
	}
	return byte(i), nil
}

// slotKey is a key in a slot.
type slotKey struct {
	Algorithm byte        `json:"algorithm"`
	PIN       PINPolicy   `json:"pin"`
	Touch     TouchPolicy `json:"touch"`
	Imported  bool        `json:"imported,omitempty"`
	PKCS8     []byte      `json:"pkcs8"`

	private privateKey
}

// holdsKey says whether a slot number is one of private keys.
func holdsKey(slot byte) bool {
	switch slot {
	case slotAuthentication, slotSignature, slotKeyManagement, slotCard, slotAttestation:
		return true
	}
	return slot >= slotRetiredFirst && slot <= slotRetiredLast
}

func slotName(slot byte) string { return fmt.Sprintf("%02x", slot) }

// defaults fills in what the slot's default policies are.
func (k *slotKey) defaults(slot byte) {
	if k.PIN == 0 {
		switch slot {
		case slotSignature:
			k.PIN = PINAlways
		case slotCard:
			k.PIN = PINNever
		default:
			k.PIN = PINOnce
		}
	}
	if k.Touch == 0 {
		k.Touch = TouchNever
	}
}

// policies reads the two optional policy fields.
func (k *slotKey) policies(parts map[uint32][]byte) Status {
	pin, hasPIN := parts[tagPINPolicy]
	touch, hasTouch := parts[tagTouchPolicy]
	if hasPIN {
		if len(pin) != 1 || PINPolicy(pin[0]) > PINAlways {
			return statusData
		}
		k.PIN = PINPolicy(pin[0])
	}
	if hasTouch {
		if len(touch) != 1 || TouchPolicy(touch[0]) > TouchCached {
			return statusData
		}
		k.Touch = TouchPolicy(touch[0])
	}
	delete(parts, tagPINPolicy)
	delete(parts, tagTouchPolicy)
	return statusOK
}

// generate is GENERATE ASYMMETRIC KEY PAIR.
func (c *Card) generate(cmd apdu) ([]byte, Status) {
	if !c.session.management {
		return nil, statusSecurity
	}
	if cmd.p1 != 0 || !holdsKey(cmd.p2) {
		return nil, statusSlot
	}
	f, rest, ok := next(cmd.data)
	if !ok || f.tag != tagGenerate || len(rest) != 0 {
		return nil, statusData
	}
	parts, ok := fields(f.value)
	if !ok || len(parts[tagAlgorithm]) != 1 {
		return nil, statusData
	}
	k := &slotKey{Algorithm: parts[tagAlgorithm][0]}
	if sw := k.policies(parts); sw != statusOK {
		return nil, sw
	}
	if !c.state.Firmware.hasAlgorithm(k.Algorithm) || cmd.p2 == slotAttestation && !attests(k.Algorithm) {
		return nil, statusData
	}
	private, err := generateKey(k.Algorithm)
	if err != nil {
		return nil, statusFault
	}
	if err := c.put(cmd.p2, k, private); err != nil {
		return nil, statusFault
	}
	return tlv(tagPublic, private.template()), statusOK
}

// put stores a key.
func (c *Card) put(slot byte, k *slotKey, private privateKey) error {
	der, err := private.marshal()
	if err != nil {
		return err
	}
	k.defaults(slot)
	k.PKCS8, k.private = der, private
	c.state.Slots[slotName(slot)] = k
	c.dirty = true
	return nil
}

// importKey is Yubico's IMPORT ASYMMETRIC KEY.
func (c *Card) importKey(cmd apdu) Status {
	if !c.session.management {
		return statusSecurity
	}
	if !holdsKey(cmd.p2) {
		return statusSlot
	}
	parts, ok := fields(cmd.data)
	if !ok {
		return statusData
	}
	k := &slotKey{Algorithm: cmd.p1, Imported: true}
	if sw := k.policies(parts); sw != statusOK {
		return sw
	}
	if !c.state.Firmware.hasAlgorithm(k.Algorithm) || cmd.p2 == slotAttestation && !attests(k.Algorithm) {
		return statusData
	}
	private, err := importedKey(k.Algorithm, parts)
	if err != nil {
		return statusData
	}
	if err := c.put(cmd.p2, k, private); err != nil {
		return statusData
	}
	return statusOK
}

// moveKey is Yubico's MOVE KEY, which deletes when it moves to nowhere. Certificates stay where they are.
func (c *Card) moveKey(cmd apdu) Status {
	if !c.session.management {
		return statusSecurity
	}
	to, from := cmd.p1, cmd.p2
	deletes := to == slotNone
	if !holdsKey(from) || !deletes && (!holdsKey(to) || to == from || to == slotAttestation || from == slotAttestation) {
		return statusSlot
	}
	k, ok := c.state.Slots[slotName(from)]
	if !ok {
		return statusReference
	}
	if !deletes {
		if _, taken := c.state.Slots[slotName(to)]; taken {
			return statusConditions
		}
		c.state.Slots[slotName(to)] = k
	}
	delete(c.state.Slots, slotName(from))
	c.dirty = true
	return statusOK
}

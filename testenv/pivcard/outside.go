package pivcard

import (
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"strconv"
)

// Shown is what is to be seen of a card from outside, without its secrets.
type Shown struct {
	Serial     uint32             `json:"serial"`
	Firmware   Firmware           `json:"firmware"`
	FormFactor byte               `json:"form_factor"`
	PINLeft    int                `json:"pin_left"`
	PUKLeft    int                `json:"puk_left"`
	Management string             `json:"management"` // algorithm and touch policy
	Slots      map[string]KeyShow `json:"slots"`
	Objects    int                `json:"objects"`
	Faults     Faults             `json:"faults"`
	Touch      TouchState         `json:"touch"`
	Counts
}

// KeyShow is a key in a slot.
type KeyShow struct {
	Algorithm string `json:"algorithm"`
	PIN       string `json:"pin"`
	Touch     string `json:"touch"`
	Imported  bool   `json:"imported"`
	Public    string `json:"public"` // base64 of the SubjectPublicKeyInfo
}

var managementNames = map[byte]string{algorithm3DES: "3des", algorithmAES128: "aes128", algorithmAES192: "aes192", algorithmAES256: "aes256"}

// Show looks at the card, also while it waits for a touch.
func (c *Card) Show() Shown {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := Shown{
		Serial: c.state.Serial, Firmware: c.state.Firmware, FormFactor: c.state.FormFactor, PINLeft: c.state.PIN.Left, PUKLeft: c.state.PUK.Left,
		Management: managementNames[c.state.Management.Algorithm] + ", touch " + c.state.Management.Touch.String(),
		Slots:      map[string]KeyShow{}, Objects: len(c.state.Objects), Faults: c.faults, Touch: c.Touch.State(), Counts: c.counts,
	}
	for name, k := range c.state.Slots {
		show := KeyShow{Algorithm: algorithmNames[k.Algorithm], PIN: k.PIN.String(), Touch: k.Touch.String(), Imported: k.Imported}
		if der, err := x509.MarshalPKIXPublicKey(k.private.public()); err == nil {
			show.Public = base64.StdEncoding.EncodeToString(der)
		}
		s.Slots[name] = show
	}
	return s
}

// KeyPlan is a key to be put into a slot from outside, without the management key. Policies by name; "" is the slot's default.
type KeyPlan struct {
	Slot      string `json:"slot"`                // "9a"
	Algorithm string `json:"algorithm,omitempty"` // "p256"; of an imported key it is the key's own
	PIN       string `json:"pin,omitempty"`
	Touch     string `json:"touch,omitempty"`
}

// Generate makes a key in a slot as the card itself would.
func (c *Card) Generate(p KeyPlan) (crypto.PublicKey, error) {
	algorithm, err := algorithmOf(p.Algorithm)
	if err != nil {
		return nil, fmt.Errorf("generating a key: %w", err)
	}
	private, err := generateKey(algorithm)
	if err != nil {
		return nil, err
	}
	return c.place(p, private, false)
}

// Import puts a key that was made elsewhere into a slot: *ecdsa.PrivateKey, ed25519.PrivateKey, *ecdh.PrivateKey or *rsa.PrivateKey.
func (c *Card) Import(p KeyPlan, key crypto.PrivateKey) (crypto.PublicKey, error) {
	return c.place(p, privateKey{key}, true)
}

func (c *Card) place(p KeyPlan, private privateKey, imported bool) (crypto.PublicKey, error) {
	fail := func(err error) (crypto.PublicKey, error) {
		return nil, fmt.Errorf("putting a key into slot %q: %w", p.Slot, err)
	}
	slot, err := strconv.ParseUint(p.Slot, 16, 8)
	if err != nil || !holdsKey(byte(slot)) {
		return fail(fmt.Errorf("want 9a, 9c, 9d, 9e, 82 to 95, or f9"))
	}
	pin, err := policyOf(pinPolicyNames, p.PIN)
	if err != nil {
		return fail(err)
	}
	touch, err := policyOf(touchPolicyNames, p.Touch)
	if err != nil {
		return fail(err)
	}
	algorithm, ok := private.algorithm()
	c.busy.Lock()
	defer c.busy.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !ok || !c.state.Firmware.hasAlgorithm(algorithm) {
		return fail(fmt.Errorf("firmware %s has no such algorithm", c.state.Firmware))
	}
	k := &slotKey{Algorithm: algorithm, PIN: PINPolicy(pin), Touch: TouchPolicy(touch), Imported: imported}
	if err := c.put(byte(slot), k, private); err != nil {
		return fail(err)
	}
	return private.public(), c.keep()
}

// SetFirmware makes the card one of another version; what it holds stays.
func (c *Card) SetFirmware(f Firmware) error {
	if err := f.check(); err != nil {
		return fmt.Errorf("setting the firmware: %w", err)
	}
	c.busy.Lock()
	defer c.busy.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state.Firmware = f
	return c.keep()
}

package pivcard

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
)

// Extensions of attestations (Yubico's PIV attestation).
var (
	oidFirmware   = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 41482, 3, 3}
	oidSerial     = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 41482, 3, 7}
	oidPolicy     = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 41482, 3, 8}
	oidFormFactor = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 41482, 3, 9}
)

// slotPrefix begins the name in a slot's certificate.
const slotPrefix = "YubiKey PIV Attestation "

// Faults make attestations wrong on purpose. The zero value is a card without faults.
type Faults struct {
	Without  []string `json:"without,omitempty"`  // of "firmware", "serial", "policy", "formfactor": extensions that are missing
	Slot     string   `json:"slot,omitempty"`     // the name says this slot: "9c"
	Firmware string   `json:"firmware,omitempty"` // the extension says this version
	Serial   uint32   `json:"serial,omitempty"`   // the extension says this serial number
	Touch    string   `json:"touch,omitempty"`    // the extension says this touch policy
	PIN      string   `json:"pin,omitempty"`      // the extension says this PIN policy
	Expired  bool     `json:"expired,omitempty"`  // it was valid for a day, long ago
	Imported bool     `json:"imported,omitempty"` // imported keys are attested as well, as no card would
}

var faultyExtensions = []string{"firmware", "serial", "policy", "formfactor"}

func (f Faults) check() error {
	for _, w := range f.Without {
		if !slices.Contains(faultyExtensions, w) {
			return fmt.Errorf("extension %q: want one of %q", w, faultyExtensions)
		}
	}
	if f.Firmware != "" {
		if err := new(Firmware).UnmarshalText([]byte(f.Firmware)); err != nil {
			return err
		}
	}
	if len(f.Slot) > len(slotPrefix) {
		return fmt.Errorf("slot %q: too long", f.Slot)
	}
	_, err := policyOf(touchPolicyNames, f.Touch)
	_, err2 := policyOf(pinPolicyNames, f.PIN)
	return errors.Join(err, err2)
}

// SetFaults makes the attestations from now on wrong in this way. They are not kept in the card's file.
func (c *Card) SetFaults(f Faults) error {
	if err := f.check(); err != nil {
		return fmt.Errorf("setting faults: %w", err)
	}
	c.busy.Lock()
	defer c.busy.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = f
	return nil
}

// attest is Yubico's ATTEST: a certificate over a key that was made here, signed by the key in slot F9.
func (c *Card) attest(cmd apdu) ([]byte, Status) {
	if !holdsKey(cmd.p1) || cmd.p1 == slotAttestation || cmd.p2 != 0 {
		return nil, statusSlot
	}
	k, ok := c.state.Slots[slotName(cmd.p1)]
	if !ok || k.Imported && !c.faults.Imported {
		return nil, statusData
	}
	der, err := c.attestation(cmd.p1, k)
	if err != nil {
		return nil, statusData
	}
	return der, statusOK
}

func (c *Card) attestation(slot byte, k *slotKey) ([]byte, error) {
	device, err := c.deviceCertificate()
	if err != nil {
		return nil, err
	}
	signer, ok := c.state.Slots[slotName(slotAttestation)]
	if !ok {
		return nil, errors.New("no attestation key")
	}
	extensions, err := c.extensions(k)
	if err != nil {
		return nil, err
	}
	name := slotName(slot)
	if c.faults.Slot != "" {
		name = c.faults.Slot
	}
	notBefore, notAfter := device.NotBefore, device.NotAfter
	if c.faults.Expired {
		notAfter = notBefore.AddDate(0, 0, 1)
	}
	device.SubjectKeyId, device.PublicKey = nil, nil // a card signs whether or not its certificate fits its key
	return x509.CreateCertificate(rand.Reader, &x509.Certificate{
		RawSubject: commonName(slotPrefix + name), SerialNumber: newSerial(),
		NotBefore: notBefore, NotAfter: notAfter, ExtraExtensions: extensions,
	}, device, k.private.public(), signer.private.key)
}

// extensions are the four of an attestation, in a card's order. Below firmware 5 there are two.
func (c *Card) extensions(k *slotKey) ([]pkix.Extension, error) {
	f, firmware, serial := c.faults, c.state.Firmware, c.state.Serial
	pin, touch := byte(k.PIN), byte(k.Touch)
	if f.Firmware != "" {
		if err := firmware.UnmarshalText([]byte(f.Firmware)); err != nil {
			return nil, err
		}
	}
	if f.Serial != 0 {
		serial = f.Serial
	}
	if f.Touch != "" {
		touch, _ = policyOf(touchPolicyNames, f.Touch)
	}
	if f.PIN != "" {
		pin, _ = policyOf(pinPolicyNames, f.PIN)
	}
	number, err := asn1.Marshal(int64(serial))
	if err != nil {
		return nil, err
	}
	var all []pkix.Extension
	add := func(name string, oid asn1.ObjectIdentifier, value []byte) {
		if !slices.Contains(f.Without, name) {
			all = append(all, pkix.Extension{Id: oid, Value: value})
		}
	}
	add("firmware", oidFirmware, firmware.bytes())
	if c.state.Firmware.has(firmwareSerial) {
		add("serial", oidSerial, number)
	}
	add("policy", oidPolicy, []byte{pin, touch})
	if c.state.Firmware.has(firmwareSerial) {
		add("formfactor", oidFormFactor, []byte{c.state.FormFactor})
	}
	return all, nil
}

// Tags of certificate objects (SP 800-73-4 part 1, table 10).
const (
	tagCertificate     = 0x70
	tagCertificateInfo = 0x71
	tagErrorDetection  = 0xFE
)

func (c *Card) deviceCertificate() (*x509.Certificate, error) {
	outer, _, ok := next(c.state.Objects[objectName(objectAttestation)])
	if !ok {
		return nil, errors.New("no attestation certificate")
	}
	inner, _, ok := next(outer.value)
	if !ok || inner.tag != tagCertificate {
		return nil, errors.New("no attestation certificate")
	}
	return x509.ParseCertificate(inner.value)
}

// attestedBy gives the card an attestation key, certified by an issuer.
func (c *Card) attestedBy(i *Issuer, chain Chain) error {
	by, err := i.chain(chain, c.state.Firmware)
	if err != nil {
		return err
	}
	private, err := generateKey(algorithmRSA2048)
	if err != nil {
		return err
	}
	der, err := by.device(c.state.Firmware, private.public())
	if err != nil {
		return err
	}
	k := &slotKey{Algorithm: algorithmRSA2048, Imported: true} // as the factory does
	if err := c.put(slotAttestation, k, private); err != nil {
		return err
	}
	object := tlv(tagValue, tlv(tagCertificate, der), tlv(tagCertificateInfo, []byte{0}), tlv(tagErrorDetection))
	c.state.Objects[objectName(objectAttestation)] = object
	return nil
}

// Replace gives the card another attestation key and certificate: another chain of its issuer, or a foreign issuer's.
func (c *Card) Replace(i *Issuer, chain Chain) error {
	c.busy.Lock()
	defer c.busy.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.attestedBy(i, chain); err != nil {
		return fmt.Errorf("replacing the attestation key: %w", err)
	}
	return c.keep()
}

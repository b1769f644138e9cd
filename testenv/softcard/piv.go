package softcard

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"math/big"
	"strings"

	"golang.org/x/crypto/ssh"

	"mayfly/bastion/hardkey"
	"mayfly/policies/enrolment"
)

// Policies of keys, as an attestation has them.
const (
	PINNever, PINOnce                    = 1, 2
	TouchNever, TouchAlways, TouchCached = 1, 2, 3
)

// Plan is what an attestation is to say. The zero value is a good one of an Ed25519 key.
type Plan struct {
	Type     string  // of the SSH key; "" is ssh-ed25519
	Serial   uint32  // 0 is 7000001
	Firmware [3]byte // zero is 5.7.4
	Slot     string  // "" is 9a
	PIN      byte    // 0 is once
	Touch    byte    // 0 is always
	Without  string  // an extension that is missing: "serial", "policies"
}

// Key is a key in software whose evidence says that it is a card's.
type Key struct {
	Signer      ssh.Signer
	attestation []string
}

// Make makes a key, and has its attestation signed.
func (m *Maker) Make(p Plan) (*Key, error) {
	if p.Serial == 0 {
		p.Serial = 7000001
	}
	if p.Firmware == [3]byte{} {
		p.Firmware = [3]byte{5, 7, 4}
	}
	if p.Slot == "" {
		p.Slot = "9a"
	}
	if p.PIN == 0 {
		p.PIN = PINOnce
	}
	if p.Touch == 0 {
		p.Touch = TouchAlways
	}
	private, err := newPrivate(p.Type)
	if err != nil {
		return nil, err
	}
	device, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	deviceCertificate, err := certify(&x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "TEST softcard device"}, NotBefore: m.Certificate.NotBefore,
		NotAfter: m.Certificate.NotAfter, IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		ExtraExtensions: []pkix.Extension{{Id: oidFirmware, Value: p.Firmware[:]}}}, m.Certificate, device.Public(), m.key)
	if err != nil {
		return nil, err
	}
	serial, err := asn1.Marshal(int64(p.Serial))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(3), Subject: pkix.Name{CommonName: "YubiKey PIV Attestation " + p.Slot}, NotBefore: m.Certificate.NotBefore, NotAfter: m.Certificate.NotAfter}
	for _, e := range []struct {
		name  string
		id    asn1.ObjectIdentifier
		value []byte
	}{{"firmware", oidFirmware, p.Firmware[:]}, {"serial", oidSerial, serial}, {"policies", oidPolicies, []byte{p.PIN, p.Touch}}, {"form factor", oidFormFactor, []byte{1}}} {
		if e.name != p.Without {
			template.ExtraExtensions = append(template.ExtraExtensions, pkix.Extension{Id: e.id, Value: e.value})
		}
	}
	slot, err := certify(template, deviceCertificate, private.Public(), device)
	if err != nil {
		return nil, err
	}
	signer, err := ssh.NewSignerFromSigner(private)
	if err != nil {
		return nil, err
	}
	return &Key{Signer: signer, attestation: []string{base64.StdEncoding.EncodeToString(slot.Raw), base64.StdEncoding.EncodeToString(deviceCertificate.Raw)}}, nil
}

// Public is the key as policies have it, "TYPE BASE64".
func (k *Key) Public() string {
	return strings.TrimSuffix(string(ssh.MarshalAuthorizedKey(k.Signer.PublicKey())), "\n")
}

// Shown answers a challenge.
func (k *Key) Shown(c hardkey.Challenge) (hardkey.Shown, error) {
	answer, err := enrolment.Answer(k.Signer, c)
	return hardkey.Shown{Kind: hardkey.KindPIV, Challenge: c.String(), Attestation: k.attestation, Signature: answer}, err
}

func newPrivate(kind string) (crypto.Signer, error) {
	switch kind {
	case ssh.KeyAlgoECDSA256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case ssh.KeyAlgoECDSA384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	return private, err
}

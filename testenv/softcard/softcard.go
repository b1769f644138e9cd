// Package softcard makes, in software, what PIV cards and FIDO2 authenticators show when their keys are enrolled, for tests that need
// evidence and no device. All names in it say TEST. A card that programs can speak to is testenv/pivcard's.
package softcard

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math/big"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/bastion/hardkey"
	"mayfly/internal/sshsig"
)

// Specification constants: Yubico's extensions of PIV attestations, and FIDO's of attestation certificates.
var (
	oidFirmware   = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 41482, 3, 3}
	oidSerial     = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 41482, 3, 7}
	oidPolicies   = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 41482, 3, 8}
	oidFormFactor = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 41482, 3, 9}
	oidAAGUID     = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 45724, 1, 1, 4}
)

// aaguid is the model of all FIDO2 authenticators made here. Its bytes spell "SOFTCARD TESTING".
var aaguid = []byte("SOFTCARD TESTING")

// AAGUID is their model as rules list it.
func AAGUID() string {
	h := hex.EncodeToString(aaguid)
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// Maker signs device certificates.
type Maker struct {
	Certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	applet      string
}

// NewMaker makes a maker of PIV cards (hardkey.KindPIV) or FIDO2 authenticators (hardkey.KindFIDO2), known from a day before now for ten years.
func NewMaker(applet string, now time.Time) (*Maker, error) {
	m := &Maker{applet: applet}
	var err error
	if m.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "TEST softcard " + applet + " maker"},
		NotBefore: now.AddDate(0, 0, -1), NotAfter: now.AddDate(10, 0, 0), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	m.Certificate, err = certify(template, template, m.key.Public(), m.key)
	return m, err
}

// Issuer is the maker as rules list it.
func (m *Maker) Issuer() hardkey.Issuer {
	return hardkey.Issuer{Name: m.Certificate.Subject.CommonName, Applet: m.applet, Certificate: base64.StdEncoding.EncodeToString(m.Certificate.Raw)}
}

func certify(template, parent *x509.Certificate, public crypto.PublicKey, by crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, by)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// Card is a PIV card of a maker, with one key in slot 9a.
type Card struct {
	Key    crypto.Signer
	Serial uint32
	Touch  byte // 1 never, 2 always, 3 cached

	device *x509.Certificate
	attest *ecdsa.PrivateKey
}

// Card makes one, whose key is P-256 and asks for a touch each time, and for the PIN once.
func (m *Maker) Card(serial uint32) (*Card, error) {
	c := &Card{Serial: serial, Touch: 2}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	c.Key = key
	if c.attest, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(int64(serial)), Subject: pkix.Name{CommonName: "Yubico PIV Attestation"},
		NotBefore: m.Certificate.NotBefore, NotAfter: m.Certificate.NotAfter, IsCA: true, BasicConstraintsValid: true,
		ExtraExtensions: []pkix.Extension{{Id: oidFirmware, Value: []byte{5, 7, 1}}}}
	c.device, err = certify(template, m.Certificate, c.attest.Public(), m.key)
	return c, err
}

// Signer signs with the card's key as SSH does.
func (c *Card) Signer() (ssh.Signer, error) { return ssh.NewSignerFromSigner(c.Key) }

// Show is what the card shows for its key in answer to a challenge.
func (c *Card) Show(challenge hardkey.Challenge) (hardkey.Shown, error) {
	serial, err := asn1.Marshal(int64(c.Serial))
	if err != nil {
		return hardkey.Shown{}, err
	}
	slot, err := certify(&x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "YubiKey PIV Attestation 9a"},
		NotBefore: c.device.NotBefore, NotAfter: c.device.NotAfter, ExtraExtensions: []pkix.Extension{
			{Id: oidFirmware, Value: []byte{5, 7, 1}}, {Id: oidSerial, Value: serial}, {Id: oidPolicies, Value: []byte{2, c.Touch}}, {Id: oidFormFactor, Value: []byte{3}}}},
		c.device, c.Key.Public(), c.attest)
	if err != nil {
		return hardkey.Shown{}, err
	}
	signer, err := c.Signer()
	if err != nil {
		return hardkey.Shown{}, err
	}
	armored, err := sshsig.Sign(signer, hardkey.Namespace, challenge.Signed())
	if err != nil {
		return hardkey.Shown{}, err
	}
	s, err := sshsig.Parse(armored)
	if err != nil {
		return hardkey.Shown{}, err
	}
	return hardkey.Shown{Kind: hardkey.KindPIV, Challenge: challenge.String(), Signature: base64.StdEncoding.EncodeToString(s.Blob()),
		Attestation: []string{base64.StdEncoding.EncodeToString(slot.Raw), base64.StdEncoding.EncodeToString(c.device.Raw)}}, nil
}

// skAttest is what ssh-keygen -O write-attestation writes.
type skAttest struct {
	Magic       string
	Certificate []byte
	Signature   []byte
	AuthData    []byte
	Flags       uint32
	Reserved    string
}

// skEd25519 is a security key's public key, PROTOCOL.u2f.
type skEd25519 struct {
	Name        string
	KeyBytes    []byte
	Application string
}

// ShowFIDO2 is what an authenticator of the maker shows for a key (sk-ssh-ed25519) that it made for a challenge.
func (m *Maker) ShowFIDO2(key ssh.PublicKey, challenge hardkey.Challenge) (hardkey.Shown, error) {
	var public skEd25519
	if err := ssh.Unmarshal(key.Marshal(), &public); err != nil {
		return hardkey.Shown{}, fmt.Errorf("softcard: %s: %w", key.Type(), err)
	}
	attest, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return hardkey.Shown{}, err
	}
	model, err := asn1.Marshal(aaguid)
	if err != nil {
		return hardkey.Shown{}, err
	}
	device, err := certify(&x509.Certificate{SerialNumber: big.NewInt(3), BasicConstraintsValid: true,
		Subject:   pkix.Name{Country: []string{"SE"}, Organization: []string{"mayfly TEST"}, OrganizationalUnit: []string{"Authenticator Attestation"}, CommonName: "TEST softcard authenticator"},
		NotBefore: m.Certificate.NotBefore, NotAfter: m.Certificate.NotAfter, ExtraExtensions: []pkix.Extension{{Id: oidAAGUID, Value: model}}}, m.Certificate, attest.Public(), m.key)
	if err != nil {
		return hardkey.Shown{}, err
	}
	rp := sha256.Sum256([]byte(public.Application))
	data := append(rp[:], 0x45, 0, 0, 0, 0) // present, verified, a new key follows; counter
	data = append(data, aaguid...)
	data = append(data, 0, 4, 'T', 'E', 'S', 'T')                                   // credential ID
	data = append(data, 0xa4, 0x01, 0x01, 0x03, 0x27, 0x20, 0x06, 0x21, 0x58, 0x20) // COSE: OKP, EdDSA, Ed25519, 32 bytes of key
	data = append(data, public.KeyBytes...)
	wrapped := append([]byte{0x58, byte(len(data))}, data...) // CBOR's byte string of 24 to 255 bytes
	hash := sha256.Sum256(challenge.Signed())
	message := sha256.Sum256(append(data, hash[:]...))
	sig, err := attest.Sign(rand.Reader, message[:], crypto.SHA256)
	if err != nil {
		return hardkey.Shown{}, err
	}
	blob := ssh.Marshal(skAttest{Magic: "ssh-sk-attest-v01", Certificate: device.Raw, Signature: sig, AuthData: wrapped})
	return hardkey.Shown{Kind: hardkey.KindFIDO2, Challenge: challenge.String(), Attestation: []string{base64.StdEncoding.EncodeToString(blob)}}, nil
}

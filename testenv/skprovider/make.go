package skprovider

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"math/big"
	"time"

	"mayfly/testenv/pivcard"
)

// AAGUID names a model of authenticators.
type AAGUID [16]byte

// Model is this key's own. Its bytes spell "SOFTWARE TESTKEY".
var Model = AAGUID([]byte("SOFTWARE TESTKEY"))

// String is the form of RFC 9562, section 4.
func (a AAGUID) String() string {
	h := hex.EncodeToString(a[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// oidAAGUID is the extension of an attestation certificate that names the model (WebAuthn level 2, section 8.2.1).
var oidAAGUID = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 45724, 1, 1, 4}

// attestationUnit is the unit that the subject of every attestation certificate has (WebAuthn level 2, section 8.2.1).
const attestationUnit = "Authenticator Attestation"

// Make is how a key leaves the factory.
type Make struct {
	Issuer   *pivcard.Authority // a maker's FIDO authority; its PIV one makes a key that no verifier may take
	AAGUID   AAGUID
	Nameless bool      // the certificate does not name the model
	Unit     string    // of the certificate's subject, if it is not the one that it must be
	NotAfter time.Time // of the certificate; zero: the issuer's
}

// certify makes the certificate with which a key attests, and its private key.
func (m Make) certify() (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 64))
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial.Add(serial, big.NewInt(1)),
		Subject: pkix.Name{Country: []string{"SE"}, Organization: []string{"mayfly TEST"},
			OrganizationalUnit: []string{attestationUnit}, CommonName: "mayfly TEST software security key"},
		NotBefore: m.Issuer.Certificate.NotBefore, NotAfter: m.Issuer.Certificate.NotAfter, BasicConstraintsValid: true,
	}
	if m.Unit != "" {
		template.Subject.OrganizationalUnit = []string{m.Unit}
	}
	if !m.NotAfter.IsZero() {
		template.NotAfter = m.NotAfter
	}
	if !m.Nameless {
		value, err := asn1.Marshal(m.AAGUID[:])
		if err != nil {
			return nil, nil, err
		}
		template.ExtraExtensions = []pkix.Extension{{Id: oidAAGUID, Value: value}}
	}
	der, err := m.Issuer.Sign(template, key.Public())
	return key, der, err
}

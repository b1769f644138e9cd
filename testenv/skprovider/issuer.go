package skprovider

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math/big"
	"time"
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

// Issuer signs the certificates with which keys attest.
type Issuer struct {
	Certificate *x509.Certificate
	Key         crypto.Signer
}

// NewIssuer makes an issuer of its own, valid from a day before now for ten years.
func NewIssuer(name string, now time.Time) (*Issuer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a test issuer: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "TEST software FIDO2 issuer " + name},
		NotBefore: now.AddDate(0, 0, -1), NotAfter: now.AddDate(10, 0, 0),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("making a test issuer: %w", err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("making a test issuer: %w", err)
	}
	return &Issuer{Certificate: certificate, Key: key}, nil
}

// Base64 is the issuer's certificate as a policy lists it.
func (i *Issuer) Base64() string { return base64.StdEncoding.EncodeToString(i.Certificate.Raw) }

// Make is how a key leaves the factory.
type Make struct {
	Issuer    *Issuer
	AAGUID    AAGUID
	Nameless  bool      // the certificate does not name the model
	NotBefore time.Time // of the certificate; zero: the issuer's
	NotAfter  time.Time
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
			OrganizationalUnit: []string{"Authenticator Attestation"}, CommonName: "TEST software security key"},
		NotBefore: m.NotBefore, NotAfter: m.NotAfter, BasicConstraintsValid: true,
	}
	if template.NotBefore.IsZero() {
		template.NotBefore = m.Issuer.Certificate.NotBefore
	}
	if template.NotAfter.IsZero() {
		template.NotAfter = m.Issuer.Certificate.NotAfter
	}
	if !m.Nameless {
		value, err := asn1.Marshal(m.AAGUID[:])
		if err != nil {
			return nil, nil, err
		}
		template.ExtraExtensions = []pkix.Extension{{Id: oidAAGUID, Value: value}}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, m.Issuer.Certificate, key.Public(), m.Issuer.Key)
	return key, der, err
}

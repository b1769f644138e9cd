// Package softcard makes, in software, what PIV cards and FIDO2 authenticators show when their keys are enrolled, for tests that need
// evidence and no device. All names in it say TEST. A card that programs can speak to is testenv/pivcard's.
package softcard

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"math/big"
	"time"

	"mayfly/bastion/hardkey"
)

// Specification constants: Yubico's extensions of PIV attestations, and FIDO's of attestation certificates.
var (
	oidFirmware   = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 41482, 3, 3}
	oidSerial     = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 41482, 3, 7}
	oidPolicies   = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 41482, 3, 8}
	oidFormFactor = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 41482, 3, 9}
	oidAAGUID     = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 45724, 1, 1, 4}
)

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

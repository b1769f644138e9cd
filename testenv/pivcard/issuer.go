package pivcard

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"time"

	"mayfly/internal/durable"
	"mayfly/internal/hint"
)

// Chain is who signs a device certificate.
type Chain string

const (
	ChainPIVRoot Chain = "piv-root" // the PIV root itself: firmware before 5.7.4
	ChainPIV     Chain = "piv"      // the PIV intermediate, below two others: from 5.7.4 on
	ChainFIDO    Chain = "fido"     // the FIDO applet's intermediate, which must never vouch for a PIV key
)

// Authority is a certificate authority of a test's maker.
type Authority struct {
	Certificate *x509.Certificate
	key         crypto.Signer
}

// Issuer is a maker of virtual cards: the roots and intermediates that Yubico's chains have, by names that say TEST and software.
type Issuer struct {
	PIVRoot      *Authority // signs device certificates before 5.7.4
	Root         *Authority // of the chain from 5.7.4 on
	Intermediate *Authority // signed by Root
	PIV          *Authority // signed by Intermediate; signs device certificates from 5.7.4 on
	FIDO         *Authority // signed by Intermediate; signs FIDO2 authenticators' attestation keys
}

// Names of the authorities; each begins with namePrefix.
const (
	namePrefix       = "mayfly TEST software "
	namePIVRoot      = namePrefix + "PIV Root CA"
	nameRoot         = namePrefix + "Attestation Root 1"
	nameIntermediate = namePrefix + "Attestation Intermediate B 1"
	namePIV          = namePrefix + "PIV Attestation B 1"
	nameFIDO         = namePrefix + "FIDO Attestation B 1"
	nameDevice       = namePrefix + "PIV Attestation"
)

// Implementation constants, as Yubico's certificates have them.
const (
	authorityBits = 2048
	serialLength  = 16 // bytes
	maxIssuerFile = 1 << 16
	issuerKind    = "mayfly-pivcard-issuer/1"
)

// validity is that of Yubico's certificates, old and new.
var (
	validOld = [2]time.Time{time.Date(2016, 3, 14, 0, 0, 0, 0, time.UTC), time.Date(2052, 4, 17, 0, 0, 0, 0, time.UTC)}
	validNew = [2]time.Time{time.Date(2024, 12, 1, 0, 0, 0, 0, time.UTC), time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)}
)

// NewIssuer makes one with keys of its own.
func NewIssuer() (*Issuer, error) {
	i := &Issuer{}
	for _, a := range []struct {
		to      **Authority
		name    string
		by      **Authority
		valid   [2]time.Time
		pathLen int
	}{
		{&i.PIVRoot, namePIVRoot, nil, validOld, 1},
		{&i.Root, nameRoot, nil, validNew, 3},
		{&i.Intermediate, nameIntermediate, &i.Root, validNew, 2},
		{&i.PIV, namePIV, &i.Intermediate, validNew, 1},
		{&i.FIDO, nameFIDO, &i.Intermediate, validNew, 0},
	} {
		key, err := rsa.GenerateKey(rand.Reader, authorityBits)
		if err != nil {
			return nil, fmt.Errorf("making a test issuer: %w", err)
		}
		template := &x509.Certificate{
			RawSubject: commonName(a.name), NotBefore: a.valid[0], NotAfter: a.valid[1], SerialNumber: newSerial(),
			BasicConstraintsValid: true, IsCA: true, MaxPathLen: a.pathLen, MaxPathLenZero: a.pathLen == 0,
			KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		}
		signer := &Authority{Certificate: template, key: key}
		if a.by != nil {
			signer = *a.by
		}
		der, err := signer.Sign(template, key.Public())
		if err != nil {
			return nil, fmt.Errorf("making a test issuer: %w", err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("making a test issuer: %w", err)
		}
		*a.to = &Authority{Certificate: cert, key: key}
	}
	return i, nil
}

// Sign makes a certificate for a public key.
func (a *Authority) Sign(template *x509.Certificate, public crypto.PublicKey) ([]byte, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, a.Certificate, public, a.key)
	if err != nil {
		return nil, fmt.Errorf("signing a test certificate: %w", err)
	}
	return der, nil
}

// Base64 is the certificate as a policy takes it.
func (a *Authority) Base64() string { return base64.StdEncoding.EncodeToString(a.Certificate.Raw) }

// PEM is the certificate as other programs take it.
func (a *Authority) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate.Raw})
}

// DeviceIssuer is an authority that signs device certificates, as a policy's [[hardware.test_issuer]] names it.
type DeviceIssuer struct {
	Name        string `json:"name"`
	Applet      string `json:"applet"`      // "piv" or "fido2"
	Certificate string `json:"certificate"` // base64 of the DER
}

// DeviceIssuers are those of this maker.
func (i *Issuer) DeviceIssuers() []DeviceIssuer {
	return []DeviceIssuer{
		{namePIVRoot, "piv", i.PIVRoot.Base64()}, {namePIV, "piv", i.PIV.Base64()}, {nameFIDO, "fido2", i.FIDO.Base64()},
	}
}

// chain is the authority that signs device certificates of a firmware.
func (i *Issuer) chain(c Chain, f Firmware) (*Authority, error) {
	switch {
	case c == ChainPIVRoot, c == "" && !f.has(firmwareNewChain):
		return i.PIVRoot, nil
	case c == ChainPIV, c == "":
		return i.PIV, nil
	case c == ChainFIDO:
		return i.FIDO, nil
	}
	return nil, fmt.Errorf("chain %q: want %s, %s or %s", c, ChainPIVRoot, ChainPIV, ChainFIDO)
}

// device makes the certificate of an attestation key, as in slot F9 of a card.
func (a *Authority) device(f Firmware, public crypto.PublicKey) ([]byte, error) {
	parent := *a.Certificate
	parent.SubjectKeyId = nil // Yubico's device certificates name no key
	by := &Authority{Certificate: &parent, key: a.key}
	constraints, err := asn1.Marshal(struct {
		IsCA       bool
		MaxPathLen int
	}{true, 0})
	if err != nil {
		return nil, err
	}
	return by.Sign(&x509.Certificate{
		RawSubject: commonName(nameDevice), SerialNumber: newSerial(), NotBefore: a.Certificate.NotBefore, NotAfter: a.Certificate.NotAfter,
		ExtraExtensions: []pkix.Extension{
			{Id: oidFirmware, Value: f.bytes()},
			{Id: oidBasicConstraints, Critical: true, Value: constraints},
		},
	}, public)
}

var (
	oidCommonName       = asn1.ObjectIdentifier{2, 5, 4, 3}
	oidBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
)

// commonName is a name of one UTF8String, as a YubiKey writes it.
func commonName(name string) []byte {
	der, err := asn1.Marshal(pkix.RDNSequence{{{Type: oidCommonName, Value: asn1.RawValue{Tag: asn1.TagUTF8String, Bytes: []byte(name)}}}})
	if err != nil {
		panic("pivcard: internal error: " + err.Error())
	}
	return der
}

func newSerial() *big.Int {
	b := make([]byte, serialLength)
	rand.Read(b)
	b[0] = 1 // positive and of full length
	return new(big.Int).SetBytes(b)
}

// issuerFile is what Save writes.
type issuerFile struct {
	Kind        string                   `json:"kind"`
	Authorities map[string]authorityFile `json:"authorities"`
}

type authorityFile struct {
	Certificate []byte `json:"certificate"`
	PKCS8       []byte `json:"pkcs8"`
}

func (i *Issuer) authorities() map[string]**Authority {
	return map[string]**Authority{"piv-root": &i.PIVRoot, "root": &i.Root, "intermediate": &i.Intermediate, "piv": &i.PIV, "fido": &i.FIDO}
}

// Save writes the issuer with its keys to a file, 0600.
func (i *Issuer) Save(path string) error {
	file := issuerFile{Kind: issuerKind, Authorities: map[string]authorityFile{}}
	for name, a := range i.authorities() {
		der, err := x509.MarshalPKCS8PrivateKey((*a).key)
		if err != nil {
			return fmt.Errorf("saving test issuer: %w", err)
		}
		file.Authorities[name] = authorityFile{(*a).Certificate.Raw, der}
	}
	data, err := json.Marshal(file)
	if err != nil {
		return fmt.Errorf("saving test issuer: %w", err)
	}
	if err := durable.WriteFile(path, append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("saving test issuer: %w", err)
	}
	return nil
}

// LoadIssuer reads what Save wrote.
func LoadIssuer(path string) (*Issuer, error) {
	data, err := durable.ReadSecret(path)
	if err != nil {
		return nil, fmt.Errorf("loading test issuer: %w", err)
	}
	i := &Issuer{}
	var file issuerFile
	if err := json.Unmarshal(data, &file); err != nil || len(data) > maxIssuerFile || file.Kind != issuerKind {
		return nil, hint.New(fmt.Errorf("loading test issuer %s: not of kind %s", path, issuerKind), "testenv pivcard issuer FILE makes one")
	}
	for name, to := range i.authorities() {
		cert, err := x509.ParseCertificate(file.Authorities[name].Certificate)
		if err != nil {
			return nil, fmt.Errorf("loading test issuer %s: %s: %w", path, name, err)
		}
		key, err := x509.ParsePKCS8PrivateKey(file.Authorities[name].PKCS8)
		if err != nil {
			return nil, fmt.Errorf("loading test issuer %s: %s: %w", path, name, err)
		}
		signer, ok := key.(*rsa.PrivateKey)
		if !ok || !signer.PublicKey.Equal(cert.PublicKey) {
			return nil, fmt.Errorf("loading test issuer %s: %s: key and certificate do not belong together", path, name)
		}
		*to = &Authority{Certificate: cert, key: signer}
	}
	return i, nil
}

// LoadOrNewIssuer reads an issuer's file, or makes an issuer and the file.
func LoadOrNewIssuer(path string) (*Issuer, error) {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return LoadIssuer(path)
	}
	i, err := NewIssuer()
	if err != nil {
		return nil, err
	}
	return i, i.Save(path)
}

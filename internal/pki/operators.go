package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"time"
)

// Specification constants: what a certificate of the operators' CA says of the engineer's hardware key.
const (
	keyScheme = "mayfly"
	keyPrefix = "key:" // and the SHA-256 of the SSH key's wire form, hex
)

var (
	engineerName = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,31}$`)
	keyHash      = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// Operators is the CA whose certificates open the status page and nothing else. Its keys and theirs are of P-256, as browsers and their systems take
// no Ed25519.
type Operators struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewOperators makes a CA of engineers' client certificates.
func NewOperators(fleet string, now time.Time) (certPEM, keyPEM []byte, err error) {
	name := fleet + " operators"
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("making CA %q: %w", name, err)
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		SerialNumber:          serial(),
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(caLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	return selfSigned(template, key)
}

// LoadOperators reads the CA's certificate and private key, which must belong together.
func LoadOperators(certPEM, keyPEM []byte) (*Operators, error) {
	cert, err := parseCertificate(certPEM)
	if err != nil {
		return nil, fmt.Errorf("loading the operators' CA: %w", err)
	}
	if !cert.IsCA || !cert.BasicConstraintsValid || cert.KeyUsage&x509.KeyUsageCertSign == 0 {
		return nil, errors.New("loading the operators' CA: the certificate is no CA's")
	}
	key, err := parseP256(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("loading the operators' CA: %w", err)
	}
	if pub, ok := cert.PublicKey.(*ecdsa.PublicKey); !ok || !pub.Equal(key.Public()) {
		return nil, errors.New("loading the operators' CA: the key is not the certificate's")
	}
	return &Operators{cert: cert, key: key}, nil
}

// Issue certifies the key of a request for an engineer. sshKey is the SHA-256 (hex) of the wire form of the hardware key that asked for it: who
// reads the certificate can hold both against the policy. Nothing of what the request says beside its key counts.
func (o *Operators) Issue(csrDER []byte, engineer, sshKey string, now time.Time, life time.Duration) (chainPEM []byte, notAfter time.Time, err error) {
	pub, err := OperatorKey(csrDER)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("issuing a page certificate for %q: %w", engineer, err)
	}
	notAfter = now.Add(life)
	if notAfter.After(o.cert.NotAfter) {
		notAfter = o.cert.NotAfter
	}
	notAfter = notAfter.UTC().Truncate(time.Second)
	switch {
	case !engineerName.MatchString(engineer):
		err = errors.New("not an engineer's name")
	case !keyHash.MatchString(sshKey):
		err = errors.New("not the SHA-256 of a key")
	case life <= 0 || !notAfter.After(now):
		err = errors.New("it would have ended already")
	case now.Before(o.cert.NotBefore):
		err = errors.New("it would begin before the CA")
	case pub.Equal(o.cert.PublicKey):
		err = errors.New("the request is for the CA's own key")
	}
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("issuing a page certificate for %q: %w", engineer, err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		Subject:               pkix.Name{CommonName: engineer},
		SerialNumber:          serial(),
		NotBefore:             now.Add(-backdate),
		NotAfter:              notAfter,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		URIs:                  []*url.URL{{Scheme: keyScheme, Opaque: keyPrefix + sshKey}},
	}, o.cert, pub, o.key)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("issuing a page certificate for %q: %w", engineer, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), notAfter, nil
}

// Operator is whom a certificate of the operators' CA names, and the hash of the hardware key that asked for it.
func Operator(cert *x509.Certificate) (engineer, sshKey string, err error) {
	engineer = cert.Subject.CommonName
	if !engineerName.MatchString(engineer) {
		return "", "", errors.New("the certificate names no engineer")
	}
	if len(cert.URIs) != 1 || cert.URIs[0].Scheme != keyScheme || len(cert.URIs[0].Opaque) <= len(keyPrefix) || cert.URIs[0].Opaque[:len(keyPrefix)] != keyPrefix {
		return "", "", errors.New("the certificate names no hardware key")
	}
	sshKey = cert.URIs[0].Opaque[len(keyPrefix):]
	if !keyHash.MatchString(sshKey) {
		return "", "", errors.New("the certificate names no hardware key")
	}
	return engineer, sshKey, nil
}

// SSHKeyHash is how certificates of the operators' CA name a key: the SHA-256 of its wire form, hex.
func SSHKeyHash(wire []byte) string {
	sum := sha256.Sum256(wire)
	return hex.EncodeToString(sum[:])
}

// OperatorKey returns the P-256 key of a certificate request that is signed by that key.
func OperatorKey(csrDER []byte) (*ecdsa.PublicKey, error) {
	if len(csrDER) > maxCSR {
		return nil, fmt.Errorf("certificate request is longer than %d bytes", maxCSR)
	}
	csr, err := x509.ParseCertificateRequest(csrDER)
	if err != nil {
		return nil, fmt.Errorf("reading certificate request: %w", err)
	}
	pub, ok := csr.PublicKey.(*ecdsa.PublicKey)
	if !ok || pub.Curve != elliptic.P256() {
		return nil, errors.New("certificate request is not for a P-256 key")
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("certificate request is not signed by its key: %w", err)
	}
	return pub, nil
}

// NewOperatorKey makes a P-256 key, as PKCS#8 PEM, and a certificate request for it.
func NewOperatorKey(engineer string) (keyPEM, csrDER []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("making key: %w", err)
	}
	csrDER, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: engineer}}, key)
	if err != nil {
		return nil, nil, fmt.Errorf("making certificate request for %q: %w", engineer, err)
	}
	keyPEM, err = encodeP256(key)
	return keyPEM, csrDER, err
}

// NewPage makes the status page's own certificate: of P-256, signed by itself, for these names and addresses.
func NewPage(names []string, addresses []netip.Addr, now time.Time, life time.Duration) (certPEM, keyPEM []byte, err error) {
	if len(names) == 0 || life <= 0 {
		return nil, nil, errors.New("making the page's certificate: no name or no life")
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("making the page's certificate: %w", err)
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: names[0]},
		SerialNumber:          serial(),
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(life),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:              names,
	}
	for _, a := range addresses {
		template.IPAddresses = append(template.IPAddresses, a.AsSlice())
	}
	return selfSigned(template, key)
}

func selfSigned(template *x509.Certificate, key *ecdsa.PrivateKey) (certPEM, keyPEM []byte, err error) {
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, fmt.Errorf("making certificate %q: %w", template.Subject.CommonName, err)
	}
	keyPEM, err = encodeP256(key)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), keyPEM, err
}

func encodeP256(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func parseP256(data []byte) (*ecdsa.PrivateKey, error) {
	der, err := onePEM(data, "PRIVATE KEY")
	if err != nil {
		return nil, fmt.Errorf("reading key: %w", err)
	}
	any, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, errors.New("reading key: not PKCS#8")
	}
	key, ok := any.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("reading key: not P-256")
	}
	return key, nil
}

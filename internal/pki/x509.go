// Package pki is the fleet's private certificate authorities: one for TLS (X.509, Ed25519), one for SSH hosts. It decides
// nothing about who may have a certificate; it only never makes one that says more than it was asked for. What a certificate
// request asks for beyond its key is ignored.
package pki

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"time"
)

// Implementation constants.
const (
	caLife   = 10 * 365 * 24 * time.Hour
	backdate = Backdate
	maxPEM   = 64 << 10
	maxCSR   = 16 << 10
	maxIPs   = 8
)

// Backdate is how long before its making a certificate begins: a machine's clock may be a little behind the CA's.
const Backdate = time.Minute

// CA signs certificates.
type CA struct {
	cert *x509.Certificate
	key  ed25519.PrivateKey
}

// NewCA makes a certificate authority that can sign end certificates only. If domains are given, none outside them is valid.
func NewCA(name string, now time.Time, domains ...string) (certPEM, keyPEM []byte, err error) {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("making CA %q: %w", name, err)
	}
	id := sha256.Sum256(pub)
	template := &x509.Certificate{
		Subject:                     pkix.Name{CommonName: name},
		SerialNumber:                serial(),
		NotBefore:                   now.Add(-backdate),
		NotAfter:                    now.Add(caLife),
		IsCA:                        true,
		BasicConstraintsValid:       true,
		MaxPathLenZero:              true,
		KeyUsage:                    x509.KeyUsageCertSign,
		SubjectKeyId:                id[:20],
		PermittedDNSDomains:         domains,
		PermittedDNSDomainsCritical: len(domains) > 0,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, pub, key)
	if err != nil {
		return nil, nil, fmt.Errorf("making CA %q: %w", name, err)
	}
	keyPEM, err = encodeKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("making CA %q: %w", name, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), keyPEM, nil
}

// LoadCA reads a CA's certificate and private key, which must belong together.
func LoadCA(certPEM, keyPEM []byte) (*CA, error) {
	cert, err := parseCertificate(certPEM)
	if err != nil {
		return nil, fmt.Errorf("loading CA: %w", err)
	}
	if !cert.IsCA || !cert.BasicConstraintsValid || cert.KeyUsage&x509.KeyUsageCertSign == 0 {
		return nil, errors.New("loading CA: the certificate is no CA's")
	}
	key, err := parseKey(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("loading CA: %w", err)
	}
	if pub, ok := cert.PublicKey.(ed25519.PublicKey); !ok || !pub.Equal(key.Public()) {
		return nil, errors.New("loading CA: the key is not the certificate's")
	}
	return &CA{cert: cert, key: key}, nil
}

// Issue signs the key of a certificate request, whose own signature must be good. The certificate says name, which becomes its
// common name and only DNS name, the addresses, and that it is for a server, a client or both, and nothing of what the
// request says. It ends after life, or with the CA.
func (c *CA) Issue(csrDER []byte, name string, ips []net.IP, server, client bool, now time.Time, life time.Duration) (chainPEM []byte, notAfter time.Time, err error) {
	defer func() {
		if err != nil {
			chainPEM, notAfter, err = nil, time.Time{}, fmt.Errorf("issuing certificate for %q: %w", name, err)
		}
	}()
	pub, err := RequestKey(csrDER)
	if err != nil {
		return nil, time.Time{}, err
	}
	if err := checkDNSName(name); err != nil {
		return nil, time.Time{}, err
	}
	if pub.Equal(c.cert.PublicKey) {
		return nil, time.Time{}, errors.New("the request is for the CA's own key")
	}
	var usage []x509.ExtKeyUsage
	if server {
		usage = append(usage, x509.ExtKeyUsageServerAuth)
	}
	if client {
		usage = append(usage, x509.ExtKeyUsageClientAuth)
	}
	notAfter = now.Add(life)
	if notAfter.After(c.cert.NotAfter) {
		notAfter = c.cert.NotAfter
	}
	notAfter = notAfter.UTC().Truncate(time.Second) // as a certificate keeps it
	switch {
	case len(usage) == 0:
		return nil, time.Time{}, errors.New("neither for a server nor for a client")
	case life <= 0 || !notAfter.After(now):
		return nil, time.Time{}, errors.New("it would have ended already")
	case now.Add(-backdate).Before(c.cert.NotBefore.Add(-backdate)):
		return nil, time.Time{}, errors.New("it would begin before the CA")
	case len(ips) > maxIPs:
		return nil, time.Time{}, fmt.Errorf("%d addresses: at most %d", len(ips), maxIPs)
	}
	id := sha256.Sum256(pub)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		SerialNumber:          serial(),
		NotBefore:             now.Add(-backdate),
		NotAfter:              notAfter,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           usage,
		DNSNames:              []string{name},
		IPAddresses:           ips,
		SubjectKeyId:          id[:20],
	}, c.cert, pub, c.key)
	if err != nil {
		return nil, time.Time{}, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), notAfter, nil
}

// RequestKey returns the Ed25519 key of a certificate request that is signed by that key.
func RequestKey(csrDER []byte) (ed25519.PublicKey, error) {
	if len(csrDER) > maxCSR {
		return nil, fmt.Errorf("certificate request is longer than %d bytes", maxCSR)
	}
	csr, err := x509.ParseCertificateRequest(csrDER)
	if err != nil {
		return nil, fmt.Errorf("reading certificate request: %w", err)
	}
	pub, ok := csr.PublicKey.(ed25519.PublicKey)
	if !ok {
		return nil, errors.New("certificate request is not for an Ed25519 key")
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("certificate request is not signed by its key: %w", err)
	}
	return pub, nil
}

// NewKey makes an Ed25519 key and returns it as PKCS#8 PEM, with a function that makes certificate requests for it.
func NewKey() (keyPEM []byte, csrFor func(name string) ([]byte, error), err error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("making key: %w", err)
	}
	keyPEM, err = encodeKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("making key: %w", err)
	}
	return keyPEM, func(name string) ([]byte, error) { return Request(key, name) }, nil
}

// Request makes a certificate request for a key that is there already.
func Request(key crypto.Signer, name string) ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
	}, key)
	if err != nil {
		return nil, fmt.Errorf("making certificate request for %q: %w", name, err)
	}
	return der, nil
}

func encodeKey(key ed25519.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// onePEM returns the body of data's one block, which must be of this type and all there is.
func onePEM(data []byte, blockType string) ([]byte, error) {
	if len(data) > maxPEM {
		return nil, fmt.Errorf("longer than %d bytes", maxPEM)
	}
	block, rest := pem.Decode(data)
	if block == nil || block.Type != blockType || len(block.Headers) > 0 || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("not one PEM block %q", blockType)
	}
	return block.Bytes, nil
}

func parseCertificate(data []byte) (*x509.Certificate, error) {
	der, err := onePEM(data, "CERTIFICATE")
	if err != nil {
		return nil, fmt.Errorf("reading certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("reading certificate: %w", err)
	}
	return cert, nil
}

func parseKey(data []byte) (ed25519.PrivateKey, error) {
	der, err := onePEM(data, "PRIVATE KEY")
	if err != nil {
		return nil, fmt.Errorf("reading key: %w", err)
	}
	any, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, errors.New("reading key: not PKCS#8")
	}
	key, ok := any.(ed25519.PrivateKey)
	if !ok {
		return nil, errors.New("reading key: not Ed25519")
	}
	return key, nil
}

// serial is 128 random bits. crypto/rand does not fail.
func serial() *big.Int {
	b := make([]byte, 16)
	rand.Read(b)
	b[0] &= 0x7f
	b[15] |= 1 // not zero
	return new(big.Int).SetBytes(b)
}

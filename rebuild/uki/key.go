package uki

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// Bounds of RSA keys: firmware has to take 2048 bits, and much of it takes no more than 4096.
const (
	MinKeyBits = 2048
	MaxKeyBits = 4096
)

// serialSize is of a certificate's serial number, in bytes.
const serialSize = 16

// Certify makes the self-signed certificate that firmware enrols for a key. Its serial number is a hash of name and key.
func Certify(name string, key crypto.Signer, from, to time.Time) (*x509.Certificate, error) {
	public, err := checkRSA(key.Public())
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(append([]byte(name+"\x00"), x509.MarshalPKCS1PublicKey(public)...))
	sum[0] = sum[0]&0x7f | 0x40 // positive, and always of the same length
	template := &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(sum[:serialSize]), Subject: pkix.Name{CommonName: name}, NotBefore: from.UTC(), NotAfter: to.UTC(),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		BasicConstraintsValid: true, SignatureAlgorithm: x509.SHA256WithRSA,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, key)
	if err != nil {
		return nil, fmt.Errorf("making the certificate %q: %w", name, err)
	}
	return x509.ParseCertificate(der)
}

// checkKey wants the key to be the certificate's, of a kind that firmware takes.
func checkKey(key crypto.Signer, certificate *x509.Certificate) error {
	public, err := checkRSA(certificate.PublicKey)
	if err != nil {
		return err
	}
	if !public.Equal(key.Public()) {
		return errors.New("the key is not that of the certificate")
	}
	return nil
}

func checkRSA(key crypto.PublicKey) (*rsa.PublicKey, error) {
	public, ok := key.(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("a Secure Boot key is RSA, not %T", key)
	}
	if bits := public.N.BitLen(); bits < MinKeyBits || bits > MaxKeyBits {
		return nil, fmt.Errorf("a Secure Boot key has %d to %d bits, not %d", MinKeyBits, MaxKeyBits, bits)
	}
	return public, nil
}

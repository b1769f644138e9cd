package hardkey

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"slices"
	"time"
)

// Bits of whoever signs.
const (
	minRSA   = 2048
	minECDSA = 256
)

func parseCertificate(field, text string) (*x509.Certificate, *Rejection) {
	der, err := decode(text, maxCertificate)
	if err != nil {
		return nil, malformed(field, "%v", err)
	}
	return readCertificate(field, der)
}

// readCertificate refuses one with a critical extension that nobody here understands (RFC 5280, section 4.2).
func readCertificate(field string, der []byte) (*x509.Certificate, *Rejection) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, malformed(field, "%v", err)
	}
	if len(cert.UnhandledCriticalExtensions) > 0 {
		return nil, malformed(field, "the certificate has extension %s, which is critical and not understood", cert.UnhandledCriticalExtensions[0])
	}
	return cert, nil
}

// signatureAlgorithms of certificates. Certificate.CheckSignature alone would take SHA-1.
var signatureAlgorithms = []x509.SignatureAlgorithm{
	x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA,
	x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512,
}

// signed reports whether the parent's key signed the child and the child says so. It asks nothing of basic constraints: the
// certificates of some YubiKeys have none, and who may be whose parent is settled here by position.
func signed(parent, child *x509.Certificate) bool {
	if !bytes.Equal(parent.RawSubject, child.RawIssuer) || !slices.Contains(signatureAlgorithms, child.SignatureAlgorithm) {
		return false
	}
	if parent.KeyUsage != 0 && parent.KeyUsage&x509.KeyUsageCertSign == 0 {
		return false
	}
	if k, ok := parent.PublicKey.(*rsa.PublicKey); ok && k.N.BitLen() < minRSA {
		return false
	}
	if k, ok := parent.PublicKey.(*ecdsa.PublicKey); ok && k.Curve.Params().BitSize < minECDSA {
		return false
	}
	return parent.CheckSignature(child.SignatureAlgorithm, child.RawTBSCertificate, child.Signature) == nil
}

// current asks each certificate for its time.
func current(now time.Time, certs ...*x509.Certificate) *Rejection {
	for _, c := range certs {
		if now.Before(c.NotBefore) || now.After(c.NotAfter) {
			return reject(Expired, "compare the clock with the certificate's dates; a certificate that has ended needs a new key",
				"the certificate of %q is good from %s to %s, and it is %s", clip(c.Subject.CommonName),
				c.NotBefore.UTC().Format(time.DateTime), c.NotAfter.UTC().Format(time.DateTime), now.UTC().Format(time.DateTime))
		}
	}
	return nil
}

package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"regexp"
	"slices"
)

var dnsName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$`)

func checkDNSName(name string) error {
	if len(name) > 253 || !dnsName.MatchString(name) {
		return errors.New("not a lower-case DNS name")
	}
	return nil
}

// Pool returns a pool of just the one CA in caPEM.
func Pool(caPEM []byte) (*x509.CertPool, error) {
	cert, err := parseCertificate(caPEM)
	if err != nil {
		return nil, err
	}
	if !cert.IsCA {
		return nil, errors.New("the certificate is no CA's")
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return pool, nil
}

// VerifyName returns a TLS client configuration that accepts one server: TLS 1.3, a certificate of the CA in caPEM and of no
// other, with exactly this DNS name in it. A CA that cannot be read, or an empty name, accepts nobody.
func VerifyName(caPEM []byte, name string) *tls.Config {
	pool, err := Pool(caPEM)
	if err != nil {
		pool = x509.NewCertPool() // never nil: nil means the system's CAs
	}
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		RootCAs:                pool,
		ServerName:             name,
		SessionTicketsDisabled: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			// The library has checked chain and name; it would let a wildcard pass, and take another name from an HTTP
			// client if this one were empty.
			if name == "" || len(state.PeerCertificates) == 0 || !slices.Contains(state.PeerCertificates[0].DNSNames, name) {
				return fmt.Errorf("certificate is not for %q", name)
			}
			return nil
		},
	}
}

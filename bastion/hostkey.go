package bastion

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/policies/bundle"
)

// maxCertificate bounds a certificate file, in bytes.
const maxCertificate = 64 << 10

// hostKeys are the bastion's Ed25519 key, with its certificate and without.
type hostKeys struct {
	plain, certified ssh.Signer
	certificate      *ssh.Certificate
}

const certifyHint = "have the fleet's host CA sign the key: fleetctl certify (see fleetctl certify --help)"

// loadHostKeys reads the key and its certificate, and refuses a certificate that is not this key's, not a host's, names no
// host or is not valid now. Whose CA signed it is for the clients to check.
func loadHostKeys(keyPath, certPath string, now time.Time) (*hostKeys, error) {
	plain, err := readHostKey(keyPath)
	if err != nil {
		return nil, err
	}
	certificate, err := readCertificate(certPath)
	if err != nil {
		return nil, hint.New(fmt.Errorf("reading host certificate: %w", err), certifyHint)
	}
	if err := checkCertificate(certificate, plain.PublicKey(), now); err != nil {
		return nil, hint.New(fmt.Errorf("reading host certificate %s: %w", certPath, err), certifyHint)
	}
	certified, err := ssh.NewCertSigner(certificate, plain)
	if err != nil {
		return nil, fmt.Errorf("reading host certificate %s: %w", certPath, err)
	}
	return &hostKeys{plain: plain, certified: certified, certificate: certificate}, nil
}

func readHostKey(path string) (ssh.Signer, error) {
	secret, err := durable.ReadSecret(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, hint.New(fmt.Errorf("reading host key: %w", err), "make one: ssh-keygen -t ed25519 -N '' -f %s", path)
	}
	if err != nil {
		return nil, fmt.Errorf("reading host key: %w", err)
	}
	key, err := ssh.ParsePrivateKey(secret)
	if err != nil {
		return nil, fmt.Errorf("reading host key %s: %w", path, err)
	}
	if t := key.PublicKey().Type(); t != ssh.KeyAlgoED25519 {
		return nil, hint.New(fmt.Errorf("reading host key %s: type %s, want %s", path, t, ssh.KeyAlgoED25519),
			"make one: ssh-keygen -t ed25519 -N '' -f %s", path)
	}
	return key, nil
}

func readCertificate(path string) (*ssh.Certificate, error) {
	data, err := durable.ReadFile(path, maxCertificate)
	if err != nil {
		return nil, err
	}
	key, _, _, rest, err := ssh.ParseAuthorizedKey(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	certificate, ok := key.(*ssh.Certificate)
	if !ok || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("%s: not one certificate", path)
	}
	return certificate, nil
}

func checkCertificate(c *ssh.Certificate, key ssh.PublicKey, now time.Time) error {
	switch {
	case c.CertType != ssh.HostCert:
		return errors.New("not a host certificate")
	case len(c.ValidPrincipals) == 0:
		return errors.New("names no host")
	case !bytes.Equal(c.Key.Marshal(), key.Marshal()):
		return errors.New("is of another key")
	}
	checker := ssh.CertChecker{Clock: func() time.Time { return now }}
	return checker.CheckCert(c.ValidPrincipals[0], c)
}

// suits refuses a certificate with which every engineer would refuse this bastion: one that has no name of a bastion of the fleet, or is
// signed by an authority that the policy has for users. Which host CA is the fleet's, only the clients know; "bastion check" shows whose it is.
func (h *hostKeys) suits(b *bundle.Bundle) error {
	if len(b.Inventory.AllBastions()) > 0 {
		if _, err := bastionName(h.certificate, b.Inventory); err != nil {
			return fmt.Errorf("%w: it is for %s", err, escape(strings.Join(h.certificate.ValidPrincipals, " "), maxDetail))
		}
	}
	for _, text := range b.Policy.Certificates.Authorities {
		if key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(text)); err == nil && bytes.Equal(key.Marshal(), h.certificate.SignatureKey.Marshal()) {
			return fmt.Errorf("it is signed by %s, which the policy has for users' certificates: no client takes a host by it", ssh.FingerprintSHA256(key))
		}
	}
	return nil
}

// valid says whether clients will accept the certificate now; everything else about it was checked when it was loaded.
func (h *hostKeys) valid(now time.Time) bool {
	return now.Unix() >= 0 && uint64(now.Unix()) >= h.certificate.ValidAfter && now.Before(h.validBefore())
}

// validBefore is the certificate's end; far away for one that has none.
func (h *hostKeys) validBefore() time.Time {
	if h.certificate.ValidBefore == ssh.CertTimeInfinity || h.certificate.ValidBefore > 1<<40 {
		return time.Unix(1<<40, 0)
	}
	return time.Unix(int64(h.certificate.ValidBefore), 0)
}

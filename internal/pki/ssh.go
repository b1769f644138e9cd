package pki

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// IssueHost signs an SSH host key for the principals, of which there must be at least one: to OpenSSH an empty list is every name.
func IssueHost(ca ssh.Signer, key ssh.PublicKey, principals []string, now time.Time, life time.Duration) (*ssh.Certificate, error) {
	if len(principals) == 0 {
		return nil, errors.New("issuing host certificate: no principals")
	}
	for _, p := range principals {
		if p == "" || strings.ContainsAny(p, ",*? \t\r\n") {
			return nil, fmt.Errorf("issuing host certificate: principal %q is no host name", p)
		}
	}
	if key.Type() != ssh.KeyAlgoED25519 {
		return nil, fmt.Errorf("issuing host certificate for %s: key is of type %s, not %s", principals[0], key.Type(), ssh.KeyAlgoED25519)
	}
	if string(key.Marshal()) == string(ca.PublicKey().Marshal()) {
		return nil, fmt.Errorf("issuing host certificate for %s: the key is the CA's own", principals[0])
	}
	from, to := now.Add(-backdate).Unix(), now.Add(life).Unix()
	if life <= 0 || from < 0 || to <= now.Unix() {
		return nil, fmt.Errorf("issuing host certificate for %s: it would have ended already", principals[0])
	}
	var number [8]byte
	rand.Read(number[:])
	cert := &ssh.Certificate{
		Key:             key,
		Serial:          binary.BigEndian.Uint64(number[:]),
		CertType:        ssh.HostCert,
		KeyId:           principals[0],
		ValidPrincipals: slices.Clone(principals),
		ValidAfter:      uint64(from),
		ValidBefore:     uint64(to),
	}
	if err := cert.SignCert(rand.Reader, ca); err != nil {
		return nil, fmt.Errorf("issuing host certificate for %s: %w", principals[0], err)
	}
	return cert, nil
}

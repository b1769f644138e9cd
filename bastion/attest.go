package bastion

import (
	"errors"

	"golang.org/x/crypto/ssh"

	"mayfly/policies"
	"mayfly/policies/trust"
)

var errCertificate = errors.New("user certificates are not accepted")

// credential is what is known of a key that a client has proven to hold.
type credential struct {
	public      string // "TYPE BASE64"
	kind        string
	fingerprint string
	evidence    string // as enrolled for this user; empty if it is not
	identity    policies.Kind
	opening     string // of a break-glass identity
}

// attest names a proven key and looks up the evidence it was enrolled with for this user. It decides nothing: an unknown key
// has no evidence, and package policies refuses that.
func attest(p policies.Policy, user string, key ssh.PublicKey) (credential, error) {
	if _, ok := key.(*ssh.Certificate); ok {
		return credential{}, errCertificate
	}
	c := credential{
		public:      trust.FormatKey(key),
		kind:        key.Type(),
		fingerprint: ssh.FingerprintSHA256(key),
	}
	k, _ := p.Enrolled(user, c.public)
	c.evidence = k.Evidence
	return c, nil
}

func (c credential) isTest() bool { return policies.IsTestEvidence(c.evidence) }

package bastion

import (
	"errors"
	"strings"

	"golang.org/x/crypto/ssh"

	"mayfly/policies"
)

var errCertificate = errors.New("user certificates are not accepted")

// credential is what is known of a key that a client has proven to hold.
type credential struct {
	public      string // "TYPE BASE64"
	kind        string
	fingerprint string
	evidence    string // as enrolled for this user; empty if it is not
}

// attest names a proven key and looks up the evidence it was enrolled with for this user. It decides nothing: an unknown key
// has no evidence, and package policies refuses that.
func attest(p policies.Policy, user string, key ssh.PublicKey) (credential, error) {
	if _, ok := key.(*ssh.Certificate); ok {
		return credential{}, errCertificate
	}
	c := credential{
		public:      strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))),
		kind:        key.Type(),
		fingerprint: ssh.FingerprintSHA256(key),
	}
	for _, e := range p.Engineers {
		if e.Name != user {
			continue
		}
		for _, k := range e.Keys {
			if samePublic(k.Public, c.public) {
				c.evidence = k.Evidence
			}
		}
	}
	return c, nil
}

// samePublic compares authorized_keys forms by type and key, not by comment.
func samePublic(enrolled, proven string) bool {
	a, b := strings.Fields(enrolled), strings.Fields(proven)
	return len(a) >= 2 && len(b) >= 2 && a[0] == b[0] && a[1] == b[1]
}

func (c credential) isTest() bool { return policies.IsTestEvidence(c.evidence) }

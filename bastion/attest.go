package bastion

import (
	"golang.org/x/crypto/ssh"

	"mayfly/policies"
	"mayfly/policies/trust"
)

// credential is what is known of a key that a client has proven to hold.
type credential struct {
	public      string // "TYPE BASE64"; of a certificate, the key in it
	kind        string
	fingerprint string
	certificate *policies.Certificate // nil: a plain key
	authority   string                // fingerprint of the certificate's authority
	evidence    string                // as enrolled for this user, and what it proves; empty if it is not
	test        bool                  // by software
	identity    policies.Kind
	opening     string // of a break-glass identity
}

// attest names a proven key and looks up the evidence it was enrolled with for this user. It decides nothing: an unknown key
// has no evidence, a certificate may say anything, and package policies refuses both.
func attest(p policies.Policy, user string, key ssh.PublicKey) credential {
	var c credential
	if certificate, ok := key.(*ssh.Certificate); ok {
		c.certificate = certificateFacts(certificate)
		c.authority = ssh.FingerprintSHA256(certificate.SignatureKey)
		key = certificate.Key
	}
	c.public, c.kind, c.fingerprint = trust.FormatKey(key), key.Type(), ssh.FingerprintSHA256(key)
	k, _ := p.Enrolled(user, c.public)
	proof, _ := p.Proof(user, k)
	c.evidence, c.test = policies.EvidenceText(k, proof), proof.Test || k.IsTest()
	return c
}

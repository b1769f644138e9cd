package bastion

import (
	"errors"

	"golang.org/x/crypto/ssh"

	"mayfly/policies"
	"mayfly/policies/trust"
)

// noTouchRequired is what the library takes, in a certificate's extensions or in Permissions, for leave to skip the touch.
const noTouchRequired = "no-touch-required"

// errNoTouch refuses such a certificate before its signature is looked at: afterwards the touch would have been waived.
var errNoTouch = errors.New("a certificate that waives touch")

// waivesTouch reports whether the library would not ask for a touch.
func waivesTouch(c *ssh.Certificate) bool {
	_, extension := c.Extensions[noTouchRequired]
	_, option := c.CriticalOptions[noTouchRequired]
	return extension || option
}

// certificateFacts are what a certificate says and whether its authority said so. The library's own checker is not asked: it takes a
// certificate without principals for everybody's.
func certificateFacts(c *ssh.Certificate) *policies.Certificate {
	return &policies.Certificate{
		Authority: trust.FormatKey(c.SignatureKey), Signed: signedByAuthority(c), User: c.CertType == ssh.UserCert,
		Serial: c.Serial, KeyID: c.KeyId, Principals: c.ValidPrincipals, ValidAfter: c.ValidAfter, ValidBefore: c.ValidBefore,
		Options: c.CriticalOptions, Extensions: c.Extensions,
	}
}

// signedByAuthority verifies the authority's signature: over all of the certificate but the signature itself (PROTOCOL.certkeys).
func signedByAuthority(c *ssh.Certificate) bool {
	if !policies.MaySign(c.SignatureKey.Type()) || c.Signature == nil { // nor may a certificate
		return false
	}
	unsigned := *c
	unsigned.Signature = nil
	data := unsigned.Marshal()
	return c.SignatureKey.Verify(data[:len(data)-4], c.Signature) == nil // without the length of no signature
}

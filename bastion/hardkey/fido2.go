package hardkey

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// Specification constants, PROTOCOL.u2f.
const (
	attestMagic = "ssh-sk-attest-v01"
	attestOld   = "ssh-sk-attest-v00" // has no authenticator data, so what was signed cannot be known
)

// attestationUnit is the subject's unit of every certificate with which a FIDO2 authenticator attests (Web Authentication,
// section 8.2.1).
const attestationUnit = "Authenticator Attestation"

// ours begins the application of every key that OpenSSH makes for SSH.
const ours = "ssh:"

// applicationForm is what may follow: the person who enrols a key chooses it, and approvers read it in lists, records and on paper.
var applicationForm = regexp.MustCompile(`^[!#-&(-+\--\[\]-_a-~]{0,60}$`) // printable ASCII without space, comma, quotation marks and backslash

// skAttest is what ssh-keygen -O write-attestation wrote.
type skAttest struct {
	Magic       string
	Certificate []byte
	Signature   []byte
	AuthData    []byte // wrapped in CBOR's byte string
	Flags       uint32 // reserved
	Reserved    string
}

// statement is an attestation as it is verified.
type statement struct {
	certificate *x509.Certificate
	signature   []byte
	raw         []byte
	data        authData
}

// fido2 verifies that an authenticator of a listed model made the key, and made it for SSH and for the challenge.
func (p *Proof) fido2(k key, s Shown, c Challenge, r rules, now time.Time) *Rejection {
	st, rejection := s.statement()
	if rejection != nil {
		return rejection
	}
	if rejection := p.attested(st, sha256.Sum256(c.Signed()), r, now); rejection != nil {
		return rejection
	}
	return p.credential(k, st.data, r)
}

// statement of a FIDO2 key.
func (s Shown) statement() (statement, *Rejection) {
	if len(s.Attestation) != 1 {
		return statement{}, malformed("attestation", "%d parts, not 1: the file that ssh-keygen -O write-attestation wrote", len(s.Attestation))
	}
	if s.Signature != "" {
		return statement{}, malformed("signature", "FIDO2 evidence has none: the attestation signs the challenge")
	}
	blob, err := decode(s.Attestation[0], maxAttestation)
	if err != nil {
		return statement{}, malformed("attestation[0]", "%v", err)
	}
	return parseStatement(blob)
}

// Model is the AAGUID that an authenticator gives itself, not verified: whoever enrols a key can say which model the fleet has to list. It is
// empty where there is none to read.
func (s Shown) Model() string {
	st, rejection := s.statement()
	if s.Kind != KindFIDO2 || rejection != nil {
		return ""
	}
	return formatAAGUID(st.data.aaguid[:])
}

func parseStatement(blob []byte) (statement, *Rejection) {
	const field = "attestation[0]"
	var a skAttest
	if bytes.HasPrefix(blob, ssh.Marshal(struct{ Magic string }{attestOld})) {
		return statement{}, malformed(field, "of the form %s, which lacks what the authenticator signed; OpenSSH 8.5 and later write %s", attestOld, attestMagic)
	}
	if err := ssh.Unmarshal(blob, &a); err != nil {
		return statement{}, malformed(field, "not what ssh-keygen -O write-attestation writes: %v", err)
	}
	if a.Magic != attestMagic || a.Flags != 0 || a.Reserved != "" {
		return statement{}, malformed(field, "of the form %q with flags %d and %q, not %s", clip(a.Magic), a.Flags, clip(a.Reserved), attestMagic)
	}
	st := statement{signature: a.Signature}
	rest, err := first(a.AuthData, &st.raw)
	if err != nil || len(rest) != 0 {
		return statement{}, malformed(field, "its authenticator data are not one byte string of CBOR")
	}
	if st.data, err = parseAuthData(st.raw); err != nil {
		return statement{}, malformed(field, "its authenticator data: %v", err)
	}
	if len(a.Certificate) == 0 {
		return statement{}, reject(Missing, "use an authenticator that attests, and do not switch attestation off",
			"the authenticator attested with no certificate (self attestation), as software does")
	}
	if len(a.Certificate) > maxCertificate {
		return statement{}, malformed(field, "a certificate longer than %d bytes", maxCertificate)
	}
	var rejection *Rejection
	st.certificate, rejection = readCertificate(field, a.Certificate)
	return st, rejection
}

// attested verifies who attests and that what was attested, challenge included, is what they signed.
func (p *Proof) attested(st statement, challenge [sha256.Size]byte, r rules, now time.Time) *Rejection {
	by, rejection := r.issuerOf(st.certificate, KindFIDO2)
	if rejection != nil {
		return rejection
	}
	p.Issuer, p.Test = by.name, by.test
	public, ok := st.certificate.PublicKey.(*ecdsa.PublicKey)
	unit := st.certificate.Subject.OrganizationalUnit
	if !ok || public.Curve != elliptic.P256() || st.certificate.IsCA || len(unit) != 1 || unit[0] != attestationUnit {
		return reject(OtherApplet, "attest with the authenticator's own FIDO2 applet",
			"the certificate of %q is not one with which FIDO2 authenticators attest", clip(st.certificate.Subject.CommonName))
	}
	if rejection := current(now, st.certificate, by.certificate); rejection != nil {
		return rejection
	}
	message := append(slices.Clone(st.raw), challenge[:]...)
	if st.certificate.CheckSignature(x509.ECDSAWithSHA256, message, st.signature) != nil {
		return reject(Signature, "make the key again with ssh-keygen -O challenge=FILE, with the file that holds the fleet's challenge, its newline included",
			"the attestation's signature does not match this challenge and this key")
	}
	return p.model(st, r)
}

// model asks for a listed one, as the maker certified it and not only as the authenticator says.
func (p *Proof) model(st statement, r rules) *Rejection {
	certified, rejection := certificateAAGUID("attestation[0]", st.certificate)
	if rejection != nil {
		return rejection
	}
	p.AAGUID = formatAAGUID(st.data.aaguid[:])
	switch {
	case !bytes.Equal(certified, st.data.aaguid[:]):
		return reject(AAGUID, "use another authenticator", "the authenticator says that it is of model %s, and its certificate is for %s", p.AAGUID, formatAAGUID(certified))
	case !slices.Contains(r.AAGUIDs, p.AAGUID):
		return reject(AAGUID, "add the model to [hardware] aaguids if the fleet trusts it", "authenticators of model %s are not on the fleet's list", p.AAGUID)
	}
	return nil
}

// credential asks that the key is the one to be enrolled, made for SSH, never leaves, and asks for a touch.
func (p *Proof) credential(k key, a authData, r rules) *Rejection {
	const anew = "make the key with ssh-keygen -t ed25519-sk -O verify-required, and enrol that"
	raw, err := a.key.raw()
	if err != nil {
		return malformed("attestation[0]", "its authenticator data: %v", err)
	}
	hash := sha256.Sum256([]byte(k.application))
	switch {
	case !bytes.Equal(raw, k.raw):
		return reject(KeyDiffers, "enrol the key and the attestation that one ssh-keygen wrote", "the attestation is of another key than the one to be enrolled")
	case !strings.HasPrefix(k.application, ours):
		return reject(RelyingParty, anew, "the key is for %q, not for SSH: its application must begin with %q", clip(k.application), ours)
	case !applicationForm.MatchString(strings.TrimPrefix(k.application, ours)):
		return reject(RelyingParty, anew, "the key is for %q: an application is %s and at most 60 printable ASCII characters without space, comma, quotation marks and backslash", clip(k.application), ours)
	case hash != a.rpIDHash:
		return reject(RelyingParty, anew, "the authenticator made the key for something else than %q", clip(k.application))
	case a.flags&(flagBackupEligible|flagBackedUp) != 0:
		return reject(Synced, "use an authenticator that keeps its keys", "the key can be copied off the authenticator (a passkey that is synchronised)")
	case a.flags&flagPresent == 0:
		return reject(Flags, anew, "the authenticator made the key without a touch")
	case a.flags&^(flagPresent|flagVerified|flagAttested|flagExtensions) != 0:
		return reject(Flags, "use another authenticator", "flags 0x%02x of the authenticator, which nobody knows", a.flags)
	case r.VerifyRequired && a.credProtect != protectRequired:
		return reject(CredProtect, anew, "the authenticator signs without PIN or biometry (credProtect %d), and the fleet asks for user verification", a.credProtect)
	}
	p.Application = k.application
	p.Touch, p.UserVerification = true, a.credProtect == protectRequired
	return nil
}

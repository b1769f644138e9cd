package skprovider

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"slices"
	"strings"
)

// EnrollRequest is what sk_enroll is asked.
type EnrollRequest struct {
	Algorithm   Algorithm
	Challenge   []byte
	Application string
	User        string // -O user=; tells resident keys of one application apart
	Flags       byte
	PIN         *string // nil: none was given
}

// Enrolled is what sk_enroll answers.
type Enrolled struct {
	Flags       byte
	Public      []byte
	Handle      []byte
	Signature   []byte // packed attestation: over authenticator data and the challenge's SHA-256
	Certificate []byte
	AuthData    []byte // as CBOR byte string, the form in which libfido2 hands it out
}

// Enroll makes a key.
func (d *Device) Enroll(r EnrollRequest) (Enrolled, error) {
	var out Enrolled
	touched := false
	err := func() error {
		if r.Application == "" {
			return refuse(General, "no application")
		}
		var settings Settings
		verified := false
		if err := d.update(func(st *state) (err error) {
			settings = st.Settings
			verified, err = st.admit(r)
			return err
		}); err != nil {
			return err
		}
		if !settings.has(FlawNoTouchFlag) {
			if err := d.touch(settings, "enroll", r.Application); err != nil {
				return err
			}
			touched = true
		}
		return d.update(func(st *state) (err error) {
			out, err = st.make(r, touched, verified)
			return err
		})
	}()
	return out, d.done(Entry{Operation: "enroll", Application: r.Application, PIN: r.PIN != nil, Touched: touched}, err)
}

// admit decides whether a key may be made, and says whether the PIN was given.
func (st *state) admit(r EnrollRequest) (verified bool, err error) {
	needs := r.Flags&(wantVerification|wantResident) != 0
	switch {
	case r.Algorithm != ECDSA && r.Algorithm != Ed25519:
		return false, refuse(Unsupported, "unknown algorithm %d", r.Algorithm)
	case st.Settings.PIN == "" && needs:
		return false, refuse(Unsupported, "no PIN is set, and a key that requires one is asked for")
	case r.PIN == nil && needs:
		return false, refuse(PINRequired, "a key like this is made only with the PIN")
	case r.PIN != nil:
		if err := st.verify(*r.PIN); err != nil {
			return false, err
		}
		verified = true
	}
	if r.Flags&wantResident != 0 && r.Flags&wantForce == 0 && st.find(r.Application, r.User) >= 0 {
		return false, refuse(CredentialExists, "a resident key for %q is there already", r.Application)
	}
	return verified, nil
}

// make makes and attests the key.
func (st *state) make(r EnrollRequest, touched, verified bool) (Enrolled, error) {
	protect := protectNone
	switch {
	case r.Flags&wantVerification != 0:
		protect = protectVerified
	case r.Flags&wantResident != 0:
		protect = protectListed
	}
	if st.Settings.has(FlawNoCredProtect) {
		protect = protectNone
	}
	c, err := newCredential(r.Algorithm, protect == protectVerified)
	if err != nil {
		return Enrolled{}, err
	}
	out := Enrolled{Flags: r.Flags}
	if out.Public, err = c.public(); err != nil {
		return Enrolled{}, err
	}
	if out.Handle, err = c.wrap(st.Secret, r.Application); err != nil {
		return Enrolled{}, err
	}
	if err := st.attest(r, &out, c, protect, touched, verified); err != nil {
		return Enrolled{}, err
	}
	if r.Flags&wantResident != 0 {
		kept := resident{Algorithm: r.Algorithm, Application: r.Application, User: r.User, Public: out.Public, Handle: out.Handle, Protected: c.protected}
		if i := st.find(r.Application, r.User); i >= 0 {
			st.Resident = slices.Delete(st.Resident, i, i+1)
		}
		st.Resident = append(st.Resident, kept)
	}
	return out, nil
}

// attest signs what is said of the new key.
func (st *state) attest(r EnrollRequest, out *Enrolled, c *credential, protect int, touched, verified bool) (err error) {
	s := st.Settings
	said, model, about := authData{application: r.Application, flags: st.flags(touched, verified), counter: st.count()}, st.AAGUID, c
	if s.has(FlawWrongRP) {
		said.application = strings.TrimPrefix(r.Application, "ssh:") + ".example"
	}
	if s.has(FlawSynced) {
		said.flags |= flagSyncable | flagSynced
	}
	if s.has(FlawOtherModel) {
		model[0] ^= 0xff
	}
	if s.has(FlawOtherKey) {
		if about, err = newCredential(r.Algorithm, c.protected); err != nil {
			return err
		}
	}
	data, err := said.attested(model, out.Handle, about, protect)
	if err != nil {
		return err
	}
	challenge := sha256.Sum256(r.Challenge)
	if s.has(FlawOtherChallenge) {
		challenge[0] ^= 0xff
	}
	if s.has(FlawCutShort) {
		data = data[:len(data)/2]
	}
	signed := append(slices.Clone(data), challenge[:]...)
	if out.AuthData, err = ctap.Marshal(data); err != nil {
		return err
	}
	key, err := x509.ParsePKCS8PrivateKey(st.Attestation)
	if err != nil {
		return err
	}
	signer, ok := key.(crypto.Signer)
	if out.Certificate = st.Certificate; s.has(FlawNoCertificate) {
		signer, out.Certificate = c.signer, nil
	}
	if !ok {
		return refuse(General, "an attestation key that cannot sign")
	}
	if c.algorithm == Ed25519 && s.has(FlawNoCertificate) {
		out.Signature, err = signer.Sign(rand.Reader, signed, crypto.Hash(0))
		return err
	}
	digest := sha256.Sum256(signed)
	out.Signature, err = signer.Sign(rand.Reader, digest[:], crypto.SHA256)
	return err
}

// flags are those of what is signed.
func (st *state) flags(touched, verified bool) (flags byte) {
	if touched {
		flags |= flagPresent
	}
	if verified && !st.Settings.has(FlawNoVerifyFlag) {
		flags |= flagVerified
	}
	return flags
}

// count is the next value of the counter.
func (st *state) count() uint32 {
	if !st.Settings.has(FlawCounterStands) {
		st.Counter++
	}
	return st.Counter
}

package hardkey

import (
	"time"
)

// Kinds of evidence.
const (
	KindPIV   = "piv"
	KindFIDO2 = "fido2"
)

// Namespace of the signature by which a PIV key answers its challenge.
const Namespace = "mayfly-enrolment"

// Implementation constants.
const (
	maxPublic      = 1 << 10 // bytes of "TYPE BASE64"
	maxCertificate = 4 << 10 // bytes of DER; real ones have about 800
	maxAttestation = 6 << 10 // bytes of what ssh-keygen wrote, so that the policy has room for its base64
	maxSignature   = 4 << 10 // bytes of an SSHSIG blob
)

// Shown is what was shown for a key when it was enrolled. It stands in the policy beside the key and is verified again at every
// load, so a change of the rules meets keys that are enrolled already.
type Shown struct {
	Kind        string   `toml:"evidence" json:"evidence"`                 // "piv" or "fido2"; what begins with "test:" is decided in package policies
	Challenge   string   `toml:"challenge" json:"challenge,omitempty"`     // one line without its newline; what was signed is the line and "\n"
	Attestation []string `toml:"attestation" json:"attestation,omitempty"` // base64. piv: slot certificate, device certificate (f9); fido2: what ssh-keygen -O write-attestation wrote
	Signature   string   `toml:"signature" json:"signature,omitempty"`     // piv: base64 of the SSHSIG blob by the key itself, over the challenge line and "\n"; fido2: none, the attestation signs the challenge
}

// Rules is what a fleet asks of keys, from [hardware] of its policy. The zero value asks for what the comments say.
type Rules struct {
	Slots          []string // PIV; none: 9a and the retired slots 82 to 95
	PINPolicies    []string // PIV; none: once, always, match_once, match_always
	MinFirmware    string   // PIV; none: DefaultMinFirmware
	SerialsAllow   []uint32 // PIV; none: any serial
	SerialsDeny    []uint32 // PIV
	AAGUIDs        []string // FIDO2: models that count; none: no FIDO2 key does
	VerifyRequired bool     // only keys that ask who is there: PIV with a PIN policy other than never, FIDO2 with credProtect 3
	FIDO2Issuers   []Issuer // makers' attestation issuers beside Yubico's
	TestIssuers    []Issuer // of virtual cards, which are software
	Test           bool     // the fleet says test = true; without it a test issuer's key is refused as what it is
}

// Issuer is a certificate authority that signs device certificates: PIV's f9, or those with which FIDO2 authenticators attest.
type Issuer struct {
	Name        string `toml:"name" json:"name"`
	Applet      string `toml:"applet" json:"applet"`           // KindPIV or KindFIDO2; it counts for nothing else
	Certificate string `toml:"certificate" json:"certificate"` // base64 of its DER
}

// Proof is what accepted evidence proves. Its zero value proves nothing.
type Proof struct {
	Kind             string `json:"kind"`
	Issuer           string `json:"issuer"`
	Test             bool   `json:"test,omitempty"` // by a test issuer: software
	Touch            bool   `json:"touch"`
	UserVerification bool   `json:"user_verification"`

	PINPolicy  string `json:"pin_policy,omitempty"` // PIV
	Slot       string `json:"slot,omitempty"`
	Firmware   string `json:"firmware,omitempty"`
	FormFactor string `json:"form_factor,omitempty"`
	Serial     uint32 `json:"serial,omitempty"`

	AAGUID      string `json:"aaguid,omitempty"` // FIDO2
	Application string `json:"application,omitempty"`

	Made time.Time `json:"made"` // of the challenge
}

// Verify decides whether what was shown proves that the key, "TYPE BASE64", of the person in the fleet lives in hardware that
// keeps the rules. A Rejection is nil when it does; compare it as such before it becomes an error.
//
// When a challenge was made is told, not judged: how old one may be when a key is enrolled is a question of that moment, and the
// answer stays true.
func Verify(fleet, name, public string, s Shown, r Rules, now time.Time) (Proof, *Rejection) {
	key, rejection := s.key(public)
	if rejection != nil {
		return Proof{}, rejection
	}
	c, rejection := checkChallenge(fleet, name, s.Challenge)
	if rejection != nil {
		return Proof{}, rejection
	}
	compiled, err := r.compile()
	if err != nil {
		return Proof{}, reject(BadRules, "mend [hardware] in the policy", "the fleet's rules for keys cannot be read: %v", err)
	}
	proof := Proof{Kind: s.Kind, Made: c.Made}
	if s.Kind == KindPIV {
		rejection = proof.piv(key, s, c, compiled, now)
	} else {
		rejection = proof.fido2(key, s, c, compiled, now)
	}
	if rejection != nil {
		return Proof{}, rejection
	}
	return proof, nil
}

// Check refuses what Verify could not even read, for whoever takes what was shown from outside. The rejection names the field.
func (s Shown) Check(public string) *Rejection {
	if _, rejection := s.key(public); rejection != nil {
		return rejection
	}
	if _, err := ParseChallenge(s.Challenge); err != nil {
		return malformed("challenge", "%v", err)
	}
	if s.Kind == KindFIDO2 {
		_, rejection := s.statement()
		return rejection
	}
	if _, _, rejection := s.certificates(); rejection != nil {
		return rejection
	}
	_, rejection := s.answer()
	return rejection
}

// key is the one that was shown, of a type that the kind of evidence is for.
func (s Shown) key(public string) (key, *Rejection) {
	if s.Kind != "" && s.Kind != KindPIV && s.Kind != KindFIDO2 {
		return key{}, reject(Kind, "enrol the key with bastion-agent enroll", "evidence %q is of no kind that proves hardware", clip(s.Kind)).of("evidence")
	}
	if s.Kind == "" || len(s.Attestation) == 0 {
		return key{}, reject(Missing, "make a key on the card (bastion-agent setup) and enrol that",
			"the key came without an attestation; one that was imported, or that software holds, cannot have any").of("attestation")
	}
	return parseKey(public, s.Kind)
}

func checkChallenge(fleet, name, line string) (Challenge, *Rejection) {
	const mend = "get a challenge for this person with fleetctl key challenge, and enrol again"
	c, err := ParseChallenge(line)
	switch {
	case err != nil:
		return Challenge{}, reject(ChallengeDiffers, mend, "the challenge cannot be read: %v", err).of("challenge")
	case c.Fleet != fleet:
		return Challenge{}, reject(ChallengeDiffers, mend, "the key answered a challenge of fleet %q, not of %q", c.Fleet, fleet).of("challenge")
	case c.Name != name:
		return Challenge{}, reject(ChallengeDiffers, mend, "the key answered a challenge made for %q, not for %q", c.Name, name).of("challenge")
	}
	return c, nil
}

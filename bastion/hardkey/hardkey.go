// Package hardkey is proof that a key lives in hardware: PIV attestation and FIDO2 attestation, verified against what a fleet
// asks of keys. It says nothing about who may log in; it does no I/O and never reads the clock.
package hardkey

import "time"

// Shown is what was shown for a key when it was enrolled. It stands in the policy beside the key and is verified again at every
// load, so a change of the rules meets keys that are enrolled already.
type Shown struct {
	Kind        string   `toml:"evidence" json:"evidence"`                 // "piv" or "fido2"; what begins with "test:" is decided in package policies
	Challenge   string   `toml:"challenge" json:"challenge,omitempty"`     // one line without its newline; what was signed is the line and "\n"
	Attestation []string `toml:"attestation" json:"attestation,omitempty"` // base64. piv: slot certificate, device certificate (f9); fido2: what ssh-keygen -O write-attestation wrote
	Signature   string   `toml:"signature" json:"signature,omitempty"`     // piv: base64 of the SSHSIG blob by the key itself, over the challenge line and "\n"; fido2: none, the attestation signs the challenge
}

// Kinds of evidence.
const (
	KindPIV   = "piv"
	KindFIDO2 = "fido2"
)

// Namespace of the signature by which a PIV key answers its challenge.
const Namespace = "mayfly-enrolment"

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
func Verify(fleet, name, public string, s Shown, r Rules, now time.Time) (Proof, *Rejection) {
	return Proof{}, reject(Missing, "this key came with no proof that it lives in hardware", "enrol it with bastion-agent enroll")
}

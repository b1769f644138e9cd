package hardkey

import (
	"errors"
	"fmt"

	"mayfly/internal/hint"
)

// Reasons of rejections; docs/formats/evidence.md explains each.
const (
	Missing          = "attestation_missing"
	Malformed        = "attestation_malformed"
	Chain            = "attestation_chain"
	OtherApplet      = "attestation_other_applet"
	KeyDiffers       = "attestation_key_differs"
	KeyType          = "attestation_key_type"
	ExtensionMissing = "attestation_extension_missing"
	Slot             = "attestation_slot"
	Imported         = "attestation_imported"
	TouchNever       = "attestation_touch_never"
	TouchCached      = "attestation_touch_cached"
	PINPolicy        = "attestation_pin_policy"
	Firmware         = "attestation_firmware"
	SerialDenied     = "attestation_serial_denied"
	SerialNotListed  = "attestation_serial_not_listed"
	Expired          = "attestation_expired"
	ChallengeDiffers = "attestation_challenge"
	Signature        = "attestation_signature"
	AAGUID           = "attestation_aaguid"
	RelyingParty     = "attestation_rp"
	Flags            = "attestation_flags"
	CredProtect      = "attestation_credprotect"
	TestIssuer       = "attestation_test"
)

// Rejection is why evidence is not accepted: a code for programs, a sentence for people, and the mend.
type Rejection struct {
	Reason string
	Text   string
	Mend   string
}

func (r *Rejection) Error() string { return r.Text }

// Unwrap lets hint.Of find the mend.
func (r *Rejection) Unwrap() error { return hint.New(errors.New(r.Text), "%s", r.Mend) }

func reject(reason, text, mend string, args ...any) *Rejection {
	return &Rejection{Reason: reason, Text: fmt.Sprintf(text, args...), Mend: mend}
}

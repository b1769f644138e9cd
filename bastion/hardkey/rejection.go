package hardkey

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"mayfly/internal/hint"
)

// Reasons of rejections; docs/formats/evidence.md explains each.
const (
	Kind             = "attestation_kind"
	Missing          = "attestation_missing"
	Malformed        = "attestation_malformed"
	KeyType          = "attestation_key_type"
	ChallengeDiffers = "attestation_challenge"
	BadRules         = "attestation_rules"
	Chain            = "attestation_chain"
	OtherApplet      = "attestation_other_applet"
	TestIssuer       = "attestation_test"
	Expired          = "attestation_expired"
	Imported         = "attestation_imported"
	KeyDiffers       = "attestation_key_differs"
	Signature        = "attestation_signature"
	ExtensionMissing = "attestation_extension_missing"
	Slot             = "attestation_slot"
	TouchNever       = "attestation_touch_never"
	TouchCached      = "attestation_touch_cached"
	PINPolicy        = "attestation_pin_policy"
	Firmware         = "attestation_firmware"
	SerialDenied     = "attestation_serial_denied"
	SerialNotListed  = "attestation_serial_not_listed"
	RelyingParty     = "attestation_rp"
	Flags            = "attestation_flags"
	Synced           = "attestation_synced"
	AAGUID           = "attestation_aaguid"
	CredProtect      = "attestation_credprotect"
)

// Reasons lists them all.
func Reasons() []string {
	return []string{
		Kind, Missing, Malformed, KeyType, ChallengeDiffers, BadRules, Chain, OtherApplet, TestIssuer, Expired, Imported, KeyDiffers, Signature,
		ExtensionMissing, Slot, TouchNever, TouchCached, PINPolicy, Firmware, SerialDenied, SerialNotListed,
		RelyingParty, Flags, Synced, AAGUID, CredProtect,
	}
}

// Rejection is why evidence is not accepted: a code for programs, a sentence for people, and the mend.
type Rejection struct {
	Reason string
	Field  string // of what was shown, where one cannot be read or is of no use: "attestation[1]"
	Text   string
	Mend   string
}

func (r *Rejection) Error() string { return r.Text }

// Unwrap lets hint.Of find the mend.
func (r *Rejection) Unwrap() error { return hint.New(errors.New(r.Text), "%s", r.Mend) }

func reject(reason, mend, text string, args ...any) *Rejection {
	return &Rejection{Reason: reason, Text: printable(fmt.Sprintf(text, args...)), Mend: mend}
}

// printable keeps what a certificate says from writing on a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

// malformed names the field that cannot be read.
func malformed(field, text string, args ...any) *Rejection {
	r := reject(Malformed, "enrol again; what bastion-agent enroll and ssh-keygen write is not edited by hand", "%s: %s", field, fmt.Sprintf(text, args...))
	return r.of(field)
}

func (r *Rejection) of(field string) *Rejection {
	r.Field = field
	return r
}

// clip bounds what an error repeats of its input.
func clip(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

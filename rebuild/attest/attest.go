// Package attest decides whether a machine's TPM proves what the machine says of itself: which stub, release, trust policy and
// ticket this boot was made of, that the keys it wants certified are its own, and that it really restarted. It is the signer's
// half: pure, data in, verdict out. The machine's half is attest/tpm; what mayfly-stub measures is attest/measure.
//
// How it hangs together (docs/formats/attestation.md):
//
//   - the signed inventory names the hash of a TPM's endorsement key, which never leaves that TPM and can only decrypt;
//   - Credential encrypts a secret to it so that this TPM alone can read it, and only if the attestation key, by name, is in it as well;
//   - the attestation key is one that signs nothing but what the TPM itself says (restricted);
//   - its quote covers the secret, the nonce, the ticket and the new public keys, and the platform registers (PCRs);
//   - the firmware's event log explains the registers: replayed it has to give what was quoted, and only then is it read.
//
// Read: attest.go, values.go (what is computed beforehand), public.go (keys), credential.go, quote.go, eventlog.go,
// firmware.go (what the log may say), verify.go (all of it).
package attest

import (
	"fmt"

	"mayfly/rebuild/attest/register"
)

// Specification constants.
const (
	// ReleasePCR is the register that mayfly-stub extends.
	ReleasePCR = register.Release
	// NonceBytes and SecretBytes of a challenge.
	NonceBytes  = 32
	SecretBytes = 32
	// quoteContext begins what the quote's qualifying data is the hash of.
	quoteContext = "mayfly-quote/1\n"
)

// PCRs are the registers that a quote covers, of the SHA-256 bank.
var PCRs = [...]int{pcrDrivers, pcrBoot, pcrSecureBoot, pcrKernel, pcrImage, pcrExtras, ReleasePCR}

// Registers by what is measured into them.
const (
	pcrDrivers    = 2  // firmware: the EFI drivers that it does not bring itself: from option ROMs, and from any medium
	pcrBoot       = 4  // firmware: what it starts
	pcrSecureBoot = 7  // firmware: Secure Boot's state, and under which certificate something was started
	pcrKernel     = 9  // the kernel's own loader: its command line and initramfs
	pcrImage      = 11 // systemd-stub: the sections of the unified kernel image
	pcrExtras     = 12 // systemd-stub: command lines and files from beside the image
)

// Bounds of what a machine sends.
const (
	MaxPublic    = 512       // a public area
	MaxQuote     = 512       // TPMS_ATTEST
	MaxSignature = 512       // TPMT_SIGNATURE
	MaxEventLog  = 192 << 10 // firmware of servers writes 10 to 60 KiB
	PCRBytes     = len(PCRs) * 32
)

// Reason codes.
const (
	Missing      = "quote_missing"       // the policy wants a quote and there is none
	EKMalformed  = "quote_ek"            // not an endorsement key of the standard's templates
	EKUnknown    = "quote_ek_unknown"    // not the endorsement key that the inventory names
	AKRefused    = "quote_ak"            // not a key that signs nothing but what the TPM says
	SecretWrong  = "quote_secret"        // not what only the inventory's TPM could decrypt
	Malformed    = "quote_malformed"     // not a quote, or not of these registers
	BadSignature = "quote_signature"     // not signed with the attestation key
	NonceWrong   = "quote_nonce"         // of another challenge, ticket or of other keys
	NotRestarted = "quote_not_restarted" // the TPM was not reset since the server's last life
	LogRefused   = "quote_event_log"     // malformed, or not what the registers hold
	Release      = "quote_pcr_release"   // another release, trust policy or ticket was measured
	Firmware     = "quote_firmware"      // the firmware measured nothing, or started something else than the release's image
	Driver       = "quote_driver"        // the firmware loaded an EFI driver that the inventory does not name
	Cmdline      = "quote_cmdline"       // a command line or files from beside the image
	Image        = "quote_image"         // other sections, or another command line or initramfs for the kernel, than the release's image has
)

// Refusal is why a machine is not believed.
type Refusal struct {
	Reason string
	Err    error
}

func (r *Refusal) Error() string { return r.Reason + ": " + r.Err.Error() }

// Unwrap returns the detail.
func (r *Refusal) Unwrap() error { return r.Err }

// Refused makes a program end with the exit code of a refusal.
func (r *Refusal) Refused() bool { return true }

func refuse(reason, format string, args ...any) *Refusal {
	return &Refusal{Reason: reason, Err: fmt.Errorf(format, args...)}
}

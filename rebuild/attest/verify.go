package attest

import (
	"crypto/sha256"
	"crypto/subtle"
	"slices"

	"mayfly/rebuild/attest/register"
)

// Evidence is what a machine sends.
type Evidence struct {
	EK, AK    []byte // public areas, TPMT_PUBLIC
	Secret    []byte // what the TPM decrypted
	Quote     []byte // TPMS_ATTEST
	Signature []byte // TPMT_SIGNATURE over it
	PCRs      []byte // the registers, 32 bytes each, in the order of PCRs
	EventLog  []byte // the firmware's
}

// Expected is what the verifier knows by itself.
type Expected struct {
	EndorsementKey string // hash that the inventory names
	Nonce, Secret  []byte // of the challenge
	Bound          Bound

	Release     Digest   // of release.json
	Trusts      []Digest // of the trust policies that a server may begin with
	Drivers     []Digest // Authenticode hashes of the EFI drivers that the server's hardware brings
	UKI, Kernel Digest   // Authenticode hashes that the release names; zero: none
	SecureBoot  []Digest // of the certificates under which the fleet's images are signed
	Sections    Digest   // what PCR 11 holds once systemd-stub has measured the release's image
	Loaded      Digest   // what PCR 9 holds once the image's kernel has measured its command line and initramfs, with the ticket's files in it
	LoadedAlone Digest   // and without any files
	Extras      Digest   // what systemd-stub measures for the ticket's files and no others: uki.Measured
	Before      *uint32  // resets of this TPM at the server's last life; nil: not known
}

// Result is what was proved.
type Result struct {
	Measured   bool   // the firmware started the release's image and kernel, and nothing else
	SecureBoot bool   // and Secure Boot let nothing start but under the fleet's certificates
	Resets     uint32 // of the TPM
	Restarts   uint32 // since the last reset: suspends
	Clock      uint64 // the TPM's, in ms
	Safe       bool   // which did not go back
}

// Verify decides whether this is the inventory's machine, restarted, with this release, trust policy and ticket, and with these keys. What is less than that
// is a *Refusal.
func Verify(e Evidence, want Expected) (Result, error) {
	switch {
	case len(e.Quote) == 0:
		return Result{}, refuse(Missing, "no quote came")
	case len(want.Nonce) != NonceBytes || len(want.Secret) != SecretBytes:
		return Result{}, refuse(SecretWrong, "there is no challenge")
	}
	if err := CheckEndorsement(e.EK, want.EndorsementKey); err != nil {
		return Result{}, err
	}
	key, err := attestationKey(e.AK)
	if err != nil {
		return Result{}, err
	}
	if subtle.ConstantTimeCompare(e.Secret, want.Secret) != 1 {
		return Result{}, refuse(SecretWrong, "the secret is not the one that only the inventory's TPM can decrypt")
	}
	q, values, err := checkQuote(key, e, want)
	if err != nil {
		return Result{}, err
	}
	if err := checkRelease(values[ReleasePCR], want); err != nil {
		return Result{}, err
	}
	if len(e.EventLog) == 0 {
		return Result{}, refuse(Firmware, "the firmware left no event log: it measured nothing")
	}
	events, err := parseLog(e.EventLog)
	if err != nil {
		return Result{}, refuse(LogRefused, "the event log: %w", err)
	}
	again := replay(events)
	for _, pcr := range PCRs {
		if pcr == ReleasePCR {
			if _, touched := again[pcr]; touched {
				return Result{}, refuse(LogRefused, "the firmware's log has events of PCR %d", pcr)
			}
			continue
		}
		if again[pcr] != values[pcr] {
			return Result{}, refuse(LogRefused, "replayed, the event log gives another PCR %d than was quoted", pcr)
		}
	}
	if err := checkDrivers(events, want); err != nil {
		return Result{}, err
	}
	measured, secure, err := checkBoot(events, want)
	if err != nil {
		return Result{}, err
	}
	beside, err := checkExtras(events, want)
	if err != nil {
		return Result{}, err
	}
	if err := checkImage(values, beside, want); err != nil {
		return Result{}, err
	}
	return Result{Measured: measured, SecureBoot: secure, Resets: q.resets, Restarts: q.restarts, Clock: q.clock, Safe: q.safe}, nil
}

// CheckEndorsement wants the endorsement key that the inventory names.
func CheckEndorsement(ek []byte, inventory string) error {
	if _, err := endorsementKey(ek); err != nil {
		return err
	}
	if got := EndorsementHash(ek); got != inventory || inventory == "" {
		return refuse(EKUnknown, "the machine's endorsement key is %s, which is not the inventory's", got)
	}
	return nil
}

// checkRelease wants the register to hold these three and nothing else, in order.
func checkRelease(got Digest, want Expected) error {
	m := register.Measured{Statement: want.Release, Ticket: digestOf(want.Bound.Ticket)}
	if !slices.ContainsFunc(want.Trusts, func(t Digest) bool { m.Trust = t; return released(m) == got }) {
		return refuse(Release, "PCR %d does not hold this release, a trust policy of the fleet and this ticket", ReleasePCR)
	}
	return nil
}

func digestOf(b []byte) Digest { return sha256.Sum256(b) }

package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"mayfly/rebuild/attest/measure"
	"mayfly/rebuild/release"
	"mayfly/rebuild/ticket"
)

// releaseRegister is the register of the TPM for what a machine was told to be: release, trust policy and ticket, in this order.
const releaseRegister = 14

// measuredFile tells mayfly-init what was measured: a line with the register, the SHA-256 and the file's name each.
const measuredFile = "measured"

// measure extends the TPM with what was believed, before anything of it is used. Where the ticket asks for a TPM, none that takes it ends the boot.
func (b *boot) measure(context.Context) error {
	var digests [][sha256.Size]byte
	var log []byte
	for _, m := range []struct {
		name string
		data []byte
	}{{release.StatementFile, b.statementData}, {ticket.TrustFile, b.trustData}, {ticket.File, b.ticketData}} {
		sum := sha256.Sum256(m.data)
		digests = append(digests, sum)
		log = fmt.Appendf(log, "%d %x %s\n", releaseRegister, sum, m.name)
	}
	err := measure.Extend(releaseRegister, digests...)
	if err != nil && b.ticket.TPM != ticket.TPMOff {
		if errors.Is(err, measure.ErrNone) {
			return refusef(tpmMissing, "the ticket asks for a TPM: %w", err)
		}
		return refusef(tpmFailed, "%w", err)
	}
	if err != nil {
		b.say("not measured: %s", oneLine(err.Error()))
		return nil
	}
	b.measured = log
	b.say("measured into register %d", releaseRegister)
	return nil
}

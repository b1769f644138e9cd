package main

import (
	"context"
	"crypto/sha256"
	"errors"

	"mayfly/rebuild/attest/measure"
	"mayfly/rebuild/ticket"
)

// releaseRegister is the register of the TPM for what a machine was told to be: release, trust policy and ticket, in this order.
const releaseRegister = 14

// measure extends the TPM with what was believed, before anything of it is used. Where the ticket asks for a TPM, none that takes it ends the boot.
func (b *boot) measure(context.Context) error {
	var digests [][sha256.Size]byte
	for _, data := range [][]byte{b.statementData, b.trustData, b.ticketData} {
		digests = append(digests, sha256.Sum256(data))
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
	b.say("measured into register %d", releaseRegister)
	return nil
}

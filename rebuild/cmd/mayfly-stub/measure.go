package main

import (
	"context"
	"crypto/sha256"
	"errors"

	"mayfly/rebuild/attest/measure"
	"mayfly/rebuild/attest/register"
	"mayfly/rebuild/ticket"
)

// measure extends the TPM with what was believed, before anything of it is used. Where the ticket asks for a TPM, none that takes it ends the boot.
func (b *boot) measure(context.Context) error {
	said := register.Measured{Statement: sha256.Sum256(b.statementData), Trust: sha256.Sum256(b.trustData), Ticket: sha256.Sum256(b.ticketData)}
	err := measure.Extend(register.Release, said.InOrder()...)
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
	b.say("measured into register %d", register.Release)
	return nil
}

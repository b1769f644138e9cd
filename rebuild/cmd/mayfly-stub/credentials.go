package main

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"mayfly/policies/trust"
	"mayfly/rebuild/ticket"
)

// openTicket reads the trust policy and believes the ticket, or refuses it.
func (b *boot) openTicket(context.Context) error {
	var err error
	if b.trustData, err = readSmall("/" + ticket.TrustFile); err != nil {
		return refusef(trustMalformed, "%w", err)
	}
	if b.trust, err = trust.Parse(b.trustData); err != nil {
		return refusef(trustMalformed, "%w", err)
	}
	b.ticketData, err = readSmall("/" + ticket.File)
	if err == nil {
		b.ticketSig, err = readSmall("/" + ticket.SignatureFile)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return refusef(ticketMissing, "%w", err)
	}
	if err != nil {
		return err
	}
	b.ticket, err = ticket.Open(b.trust, b.ticketData, b.ticketSig, time.Now())
	return err
}

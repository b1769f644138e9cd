package main

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"mayfly/policies/trust"
	"mayfly/rebuild/ticket"
)

// Where, below the root, systemd-stub puts what lies beside a unified kernel image: the ticket of a machine that its firmware started.
const (
	credentialsDir    = ".extra/credentials/"
	credentialsSuffix = ".cred"
)

// openTicket reads the trust policy, and believes the ticket for who signed it, or refuses it. Whether its time has come is judged later,
// once it is known what time it is: until then a ticket that is over can still name the controller that is told so.
func (b *boot) openTicket(context.Context) error {
	var err error
	if b.trustData, err = readSmall("/" + ticket.TrustFile); err != nil {
		return refusef(trustMalformed, "%w", err)
	}
	if b.trust, err = trust.Parse(b.trustData); err != nil {
		return refusef(trustMalformed, "%w", err)
	}
	b.ticketData, b.ticketSig, err = readTicket("/")
	if err != nil {
		return err
	}
	if b.ticket, err = ticket.Open(b.trust, b.ticketData, b.ticketSig, time.Time{}); err != nil {
		return err
	}
	b.mirrors, err = newMirrors(b.ticket)
	return err
}

// readTicket reads the ticket that the power driver put into the initramfs, or else the one that the firmware's medium brought. Both halves
// come from the same place.
func readTicket(root string) (data, sig []byte, err error) {
	for _, place := range []struct{ dir, suffix string }{{"", ""}, {credentialsDir, credentialsSuffix}} {
		data, err = readSmall(root + place.dir + ticket.File + place.suffix)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			sig, err = readSmall(root + place.dir + ticket.SignatureFile + place.suffix)
		}
		break
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, refusef(ticketMissing, "%w", err)
	}
	return data, sig, err
}

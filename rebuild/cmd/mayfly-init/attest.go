package main

import (
	"context"
	"errors"

	"mayfly/rebuild/attest"
	"mayfly/rebuild/attest/tpm"
	"mayfly/rebuild/join"
)

// attest has the machine's TPM prove this boot, and adds what it says to the request to join.
func (b *boot) attest(ctx context.Context, c *join.Client, r *join.Request) error {
	log, err := tpm.ReadLog(tpm.EventLog) // hardening has mounted securityfs
	if err != nil {
		return err
	}
	return prove(r, log, tpm.Open, func(q join.ChallengeRequest) (join.Challenge, error) { return askController(ctx, c, q) })
}

// prove asks for a challenge, and answers it with the request's keys. Which kind of endorsement key the inventory names, its hash says
// only to the signer: if it is not the usual one, the other is tried.
func prove(r *join.Request, log []byte, open func(tpm.Kind) (*tpm.Identity, error), ask func(join.ChallengeRequest) (join.Challenge, error)) error {
	err := proveWith(tpm.P256, r, log, open, ask)
	if re, ok := errors.AsType[*refusal](err); ok && re.code == attest.EKUnknown {
		if again := proveWith(tpm.RSA2048, r, log, open, ask); again == nil {
			return nil
		}
	}
	return err
}

func proveWith(kind tpm.Kind, r *join.Request, log []byte, open func(tpm.Kind) (*tpm.Identity, error), ask func(join.ChallengeRequest) (join.Challenge, error)) (err error) {
	id, err := open(kind)
	if errors.Is(err, tpm.ErrNone) {
		return refuse(codeNoTPM, "%w", err)
	}
	if err != nil {
		return refuse(codeTPM, "%w", err)
	}
	defer func() {
		if cerr := id.Close(); cerr != nil && err == nil {
			err = refuse(codeTPM, "letting go of the TPM: %w", cerr)
		}
	}()
	c, err := ask(join.ChallengeRequest{Ticket: r.Ticket, Signature: r.Signature, EK: id.EK, AK: id.AK})
	if err != nil {
		return err
	}
	secret, err := id.Activate(c.Blob, c.Encrypted)
	if err != nil {
		return refuse(codeTPM, "%w", err)
	}
	q, err := id.Quote(attest.Qualifying(c.Nonce, secret, attest.Bound{
		Ticket: r.Ticket, CSR: r.CSR, HostKey: []byte(r.HostKey), TunnelKey: []byte(r.TunnelKey),
	}))
	if err != nil {
		return refuse(codeTPM, "%w", err)
	}
	r.Attestation = &join.Attestation{
		Nonce: c.Nonce, EK: id.EK, AK: id.AK, Secret: secret, Quote: q.Quote, Signature: q.Signature, PCRs: q.PCRs, EventLog: log,
	}
	return nil
}

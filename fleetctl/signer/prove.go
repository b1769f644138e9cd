package signer

import (
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"mayfly/internal/durable"
	"mayfly/inventory"
	"mayfly/policies"
	"mayfly/policies/bundle"
	"mayfly/policies/ledger"
	"mayfly/policies/trust"
	"mayfly/policies/trust/chain"
	"mayfly/rebuild/attest"
	"mayfly/rebuild/join"
	"mayfly/rebuild/release"
	"mayfly/rebuild/ticket"
	"mayfly/rebuild/uki"
)

// maxOlderTrusts is how many trust policies before the one in force a server may begin with: a unified kernel image holds the one that
// was in force when it was made. A signer believes a release by the one in force alone.
const maxOlderTrusts = 16

// proof is what is known of a life's boot.
type proof struct {
	Evidence   string `json:"evidence"`              // ledger.Attested, ledger.Claimed or ledger.Unverified
	EK         string `json:"ek,omitempty"`          // hash of the endorsement key
	Resets     uint32 `json:"resets,omitempty"`      // of the TPM
	Restarts   uint32 `json:"restarts,omitempty"`    // suspends since
	Measured   bool   `json:"measured,omitempty"`    // the firmware started the release's image and nothing else
	SecureBoot bool   `json:"secure_boot,omitempty"` // and only under the fleet's certificates
	Safe       bool   `json:"clock_safe,omitempty"`
}

// prove decides what is known of the boot of who asks, or refuses it: where the policy says tpm = "required", less than attested is
// nothing. A ticket that was used is not asked for proof, since its second use revokes what the first one got.
func (s *server) prove(r join.Request, t *ticket.Ticket, b *bundle.Bundle, now time.Time) (proof, error) {
	srv, _ := b.Inventory.RebuiltServer(t.Server) // checkTicket saw that it is there
	if b.Policy.Image.RequiresTPM() != policies.TPMRequired {
		if srv.Power.Driver == inventory.DriverContainer {
			return proof{Evidence: ledger.Unverified}, nil
		}
		return proof{Evidence: ledger.Claimed}, nil
	}
	hash := ticket.Hash(r.Ticket)
	used, last, err := s.lives.before(t, hash)
	if err != nil || used {
		return proof{}, err
	}
	if err := s.rate.allow("quotes", t.Server, quotesPerHour, now); err != nil {
		return proof{}, err
	}
	ek := ""
	p, err := func() (proof, error) {
		if r.Attestation == nil {
			return proof{}, join.Refuse(attest.Missing, "the policy asks for a quote of the server's TPM")
		}
		ek = attest.EndorsementHash(r.Attestation.EK)
		asked, err := s.asked.take(r.Attestation, t.Server, hash, now)
		if err != nil {
			return proof{}, err
		}
		want, err := s.expected(r, t, now)
		if err != nil {
			return proof{}, err
		}
		for _, h := range srv.Drivers {
			d, err := digest(h)
			if err != nil {
				return proof{}, fmt.Errorf("drivers of %q: %w", t.Server, err)
			}
			want.Drivers = append(want.Drivers, d)
		}
		want.EndorsementKey, want.Nonce, want.Secret = srv.EndorsementKey, asked.nonce, asked.secret
		if last.EK == ek {
			want.Before = &last.Resets
		}
		a := r.Attestation
		got, err := attest.Verify(attest.Evidence{
			EK: a.EK, AK: a.AK, Secret: a.Secret, Quote: a.Quote, Signature: a.Signature, PCRs: a.PCRs, EventLog: a.EventLog,
		}, want)
		if err != nil {
			return proof{}, err
		}
		return proof{Evidence: ledger.Attested, EK: ek, Resets: got.Resets, Restarts: got.Restarts, Measured: got.Measured, SecureBoot: got.SecureBoot, Safe: got.Safe}, nil
	}()
	if err != nil {
		return proof{}, s.refused(t, hex.EncodeToString(hash[:]), ek, b.Inventory.Test, err)
	}
	return p, nil
}

// expected computes what the registers have to hold from what people signed.
func (s *server) expected(r join.Request, t *ticket.Ticket, now time.Time) (attest.Expected, error) {
	statement, err := s.released(t, now)
	if err != nil {
		return attest.Expected{}, err
	}
	beside := []uki.Credential{{Name: ticket.File, Data: r.Ticket}, {Name: ticket.SignatureFile, Data: r.Signature}}
	want := attest.Expected{
		Bound:  attest.Bound{Ticket: r.Ticket, CSR: r.CSR, HostKey: []byte(r.HostKey), TunnelKey: []byte(r.TunnelKey)},
		Extras: uki.Measured(beside),
	}
	if statement.UKI != nil { // without an image nothing is proved, and attest says so
		image, err := s.images.of(s.rules.dir, t, statement.UKI)
		if err != nil {
			return attest.Expected{}, err
		}
		want.Sections = image.Sections
		if want.Loaded, err = image.Loaded(beside); err != nil {
			return attest.Expected{}, err
		}
		if want.LoadedAlone, err = image.Loaded(nil); err != nil {
			return attest.Expected{}, err
		}
	}
	tr := s.rules.trusts()
	for _, d := range []struct {
		to  *attest.Digest
		hex string
	}{{&want.Release, t.Release}, {&want.UKI, statement.UKIAuthenticode}, {&want.Kernel, statement.KernelAuthenticode}} {
		if *d.to, err = digest(d.hex); err != nil {
			return attest.Expected{}, fmt.Errorf("release of the ticket for %q: %w", t.Server, err)
		}
	}
	for _, h := range tr.SecureBoot {
		d, err := digest(h)
		if err != nil {
			return attest.Expected{}, fmt.Errorf("secure_boot of the trust policy: %w", err)
		}
		want.SecureBoot = append(want.SecureBoot, d)
	}
	want.Trusts, err = olderTrusts(tr, filepath.Join(s.rules.dir, "public", "trust"))
	return want, err
}

// digest reads a hash; "" is none.
func digest(h string) (d attest.Digest, err error) {
	if h == "" {
		return d, nil
	}
	b, err := hex.DecodeString(h)
	if err != nil || len(b) != len(d) {
		return d, fmt.Errorf("%q is no SHA-256", h)
	}
	return attest.Digest(b), nil
}

// olderTrusts returns the hashes of the trust policy in force and of those before it. Each names the hash of the one before, so that
// the files need no belief of their own.
func olderTrusts(t *trust.Trust, dir string) ([]attest.Digest, error) {
	newest, err := digest(t.Sum())
	if err != nil {
		return nil, err
	}
	all := []attest.Digest{newest}
	for len(all) <= maxOlderTrusts && t.Previous != "" {
		before, err := digest(t.Previous)
		if err != nil {
			return nil, err
		}
		all = append(all, before)
		data, _, err := chain.Step(dir, t.Version-1)
		if err != nil || sum(data) != t.Previous {
			break // what came before that is not known here
		}
		if t, err = trust.Parse(data); err != nil {
			break
		}
	}
	return all, nil
}

// released returns the statement that a ticket names: from the ledger, or where a test fleet has none, as people signed it beside the
// files that the boot port serves.
func (s *server) released(t *ticket.Ticket, now time.Time) (*release.Statement, error) {
	book, tr, err := s.public()
	if err != nil {
		return nil, err
	}
	if book != nil {
		return book.allows(tr, t.Release, now)
	}
	dir, err := releaseDir(s.rules.dir, t)
	if err != nil {
		return nil, err
	}
	data, err := durable.ReadRegular(filepath.Join(dir, release.StatementFile), release.MaxStatement)
	if err != nil {
		return nil, fmt.Errorf("reading the release of the ticket for %q: %w", t.Server, err)
	}
	sigs, err := durable.ReadRegular(filepath.Join(dir, release.SignaturesFile), trust.MaxSignatureBytes)
	if err != nil {
		return nil, fmt.Errorf("reading the release of the ticket for %q: %w", t.Server, err)
	}
	if sum(data) != t.Release {
		return nil, join.Refuse(release.Malformed, "the release beside the boot port's files is not the one that the ticket names")
	}
	statement, err := release.Verify(s.rules.trusts(), data, sigs, now)
	if r, ok := errors.AsType[*release.Refusal](err); ok {
		return nil, join.Refuse(r.Reason, "%v", r.Err)
	}
	return statement, err
}

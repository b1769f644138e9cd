package signer

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"sync"
	"time"

	"mayfly/policies"
	"mayfly/rebuild/attest"
	"mayfly/rebuild/join"
	"mayfly/rebuild/ticket"
)

// Bounds of challenges that nobody has answered.
const (
	challengeLife         = 5 * time.Minute // a TPM takes a second or two
	maxChallenges         = 1024
	maxChallengesOfServer = 4
)

// challenge is what a TPM was asked. It is in memory only: after a restart of the signer there is none, and a server asks again.
type challenge struct {
	server        string
	ticket        [32]byte // hash
	ek, ak        []byte
	nonce, secret []byte
	expires       time.Time
}

// challenges are those that nobody has answered, by nonce.
type challenges struct {
	mu   sync.Mutex // guards open
	open map[string]challenge
}

// put keeps a challenge, or refuses it. One that ended is kept for as long again, so that a late answer hears that it is late.
func (c *challenges) put(v challenge, now time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open == nil {
		c.open = make(map[string]challenge)
	}
	ofServer, all := 0, 0
	for nonce, o := range c.open {
		switch {
		case now.Sub(o.expires) > challengeLife:
			delete(c.open, nonce)
		case now.After(o.expires):
		case o.server == v.server:
			ofServer++
			all++
		default:
			all++
		}
	}
	if ofServer >= maxChallengesOfServer || all >= maxChallenges || len(c.open) >= 2*maxChallenges {
		return join.Refuse(join.ChallengeLimit, "%d challenges of %q and %d in all are not answered", ofServer, v.server, all)
	}
	c.open[string(v.nonce)] = v
	return nil
}

// take gives out a challenge once, to who answers for the same server, ticket and keys.
func (c *challenges) take(a *join.Attestation, server string, hash [32]byte, now time.Time) (challenge, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.open[string(a.Nonce)]
	if !ok {
		return challenge{}, join.Refuse(join.ChallengeUnknown, "no such challenge, or it was answered before")
	}
	delete(c.open, string(a.Nonce))
	switch {
	case now.After(v.expires):
		return challenge{}, join.Refuse(join.ChallengeExpired, "the challenge ended at %s", v.expires.Format(time.RFC3339))
	case v.server != server || v.ticket != hash:
		return challenge{}, join.Refuse(join.ChallengeOther, "the challenge is of another server or ticket")
	case !bytes.Equal(v.ek, a.EK) || !bytes.Equal(v.ak, a.AK):
		return challenge{}, join.Refuse(join.ChallengeOther, "the challenge is of other keys")
	}
	return v, nil
}

// challenge asks a server's TPM, if it is the one that the inventory names.
func (s *server) challenge(r join.ChallengeRequest, now time.Time) (join.Challenge, error) {
	if err := r.Check(); err != nil {
		return join.Challenge{}, err
	}
	t, b, err := s.openTicket(r.Ticket, r.Signature, now)
	if err != nil {
		return join.Challenge{}, err
	}
	if b.Policy.Image.RequiresTPM() != policies.TPMRequired {
		return join.Challenge{}, join.Refuse(join.RequestInvalid, "the policy asks for no quote")
	}
	hash := ticket.Hash(r.Ticket)
	used, _, err := s.lives.before(t, hash)
	if err != nil {
		return join.Challenge{}, err
	}
	if used {
		return join.Challenge{}, join.Refuse(join.TicketUsed, "the ticket for life %d of %q was used before", t.Epoch, t.Server)
	}
	if err := s.rate.allow("challenges", t.Server, quotesPerHour, now); err != nil {
		return join.Challenge{}, err
	}
	v := challenge{
		server: t.Server, ticket: hash, ek: r.EK, ak: r.AK, nonce: make([]byte, attest.NonceBytes), secret: make([]byte, attest.SecretBytes),
		expires: now.Add(challengeLife),
	}
	rand.Read(v.nonce) // never fails
	rand.Read(v.secret)
	answer, err := func() (join.Challenge, error) {
		srv, _ := b.Inventory.RebuiltServer(t.Server) // checkTicket saw that it is there
		if err := attest.CheckEndorsement(r.EK, srv.EndorsementKey); err != nil {
			return join.Challenge{}, err
		}
		blob, encrypted, err := attest.MakeCredential(rand.Reader, r.EK, r.AK, v.secret)
		if err != nil {
			return join.Challenge{}, err
		}
		return join.Challenge{Nonce: v.nonce, Blob: blob, Encrypted: encrypted}, s.asked.put(v, now)
	}()
	if err != nil {
		return join.Challenge{}, s.refused(t, hex.EncodeToString(hash[:]), attest.EndorsementHash(r.EK), b.Inventory.Test, err)
	}
	return answer, nil
}

// refusedRecord is what the log keeps of a machine that was not believed.
type refusedRecord struct {
	Server string `json:"server"`
	Epoch  uint64 `json:"epoch"`
	Ticket string `json:"ticket"`
	EK     string `json:"ek,omitempty"` // hash of what it said was its endorsement key
	Reason string `json:"reason"`
	Detail string `json:"detail"`
	Test   bool   `json:"test"`
}

// refused records why a machine is not believed, and returns it as the protocol's refusal. Its callers are bounded by s.rate.
func (s *server) refused(t *ticket.Ticket, hash, ek string, test bool, err error) error {
	if r, ok := errors.AsType[*attest.Refusal](err); ok {
		err = join.Refuse(r.Reason, "%v", r.Err)
	}
	r, ok := join.IsRefusal(err)
	if !ok {
		return err
	}
	record := refusedRecord{Server: t.Server, Epoch: t.Epoch, Ticket: hash, EK: ek, Reason: r.Reason, Detail: r.Detail, Test: test}
	return errors.Join(s.log.Append("attestation_refused", record), err)
}

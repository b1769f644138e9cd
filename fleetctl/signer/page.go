package signer

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"mayfly/internal/pki"
	"mayfly/policies"
	"mayfly/policies/request"
	"mayfly/rebuild/join"
)

// PageLife is how long a certificate for the page lasts where nobody says less; it is also the most.
const PageLife = 12 * time.Hour

type pageRequest struct {
	Engineer string        `json:"engineer"`
	CSR      []byte        `json:"csr"`
	For      time.Duration `json:"for"` // what the order says

	Request *request.Signed `json:"request,omitempty"`
}

type pageAnswer struct {
	Chain   []byte `json:"chain"`
	Without bool   `json:"without_request,omitempty"` // nobody had to be asked
}

// PageOrder is the order for a certificate of this request's key.
func PageOrder(engineer string, csr []byte, length time.Duration) (request.Order, error) {
	key, err := pki.OperatorKey(csr)
	if err != nil {
		return request.Order{}, err
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return request.Order{}, fmt.Errorf("encoding the public key: %w", err)
	}
	hash := sha256.Sum256(der)
	return request.Page(engineer, hex.EncodeToString(hash[:]), length), nil
}

// page certifies an engineer's key for the page, by the leave of people of whom the engineer is one. The CA certifies nothing else, and nothing else
// believes it.
func (s *server) page(r pageRequest, now time.Time) (pageAnswer, error) {
	if s.keys.people == nil {
		return pageAnswer{}, join.Refuse(join.NameNotAllowed, "this directory has no operators' CA")
	}
	b, err := s.rules.bundle(now)
	if err != nil {
		return pageAnswer{}, err
	}
	asked, err := PageOrder(r.Engineer, r.CSR, r.For)
	if err != nil {
		return pageAnswer{}, join.Refuse(join.RequestInvalid, "csr: %v", err)
	}
	if r.For <= 0 || r.For > PageLife {
		return pageAnswer{}, join.Refuse(join.LifetimeTooLong, "a certificate for the page for %s, at most %s", r.For, PageLife)
	}
	i := slices.IndexFunc(b.Policy.Engineers, func(e policies.Engineer) bool { return e.Name == r.Engineer })
	if i < 0 || len(b.Policy.Engineers[i].Keys) == 0 {
		return pageAnswer{}, join.Refuse(join.NameNotAllowed, "%.63q is no engineer with a key", r.Engineer)
	}
	leave, err := s.orders.decide(b, asked, r.Request, now)
	if err != nil {
		return pageAnswer{}, err
	}
	key := policies.Fingerprint(b.Policy.Engineers[i].Keys[0].Public) // in a test fleet that asks nobody
	if leave.Request != nil {
		own := slices.IndexFunc(leave.People, func(p request.Person) bool { return p.Name == r.Engineer })
		if own < 0 {
			refusal := request.Refuse(request.NotAllowed, "%s signed, and it is for %s: nobody gets a certificate in another's name", request.Names(leave.People), r.Engineer)
			return pageAnswer{}, refusedRequest(s.orders.Refuse(b, asked, r.Request, refusal))
		}
		key = leave.People[own].Key
	}
	hash, err := base64.RawStdEncoding.DecodeString(strings.TrimPrefix(key, "SHA256:"))
	if err != nil {
		return pageAnswer{}, fmt.Errorf("reading the fingerprint of %s's key: %w", r.Engineer, err)
	}
	if err := s.rate.allow("page certificates", r.Engineer, pagesPerHour, now); err != nil {
		return pageAnswer{}, err
	}
	if err := s.orders.begin(b, asked, leave, r.Request, now); err != nil {
		return pageAnswer{}, err
	}
	chain, notAfter, err := s.keys.people.Issue(r.CSR, r.Engineer, hex.EncodeToString(hash), now, r.For)
	if err != nil {
		return pageAnswer{}, err
	}
	record := certificateRecord{Name: r.Engineer, TLSKey: asked.Arguments[request.ArgKey], TLS: chainHash(chain), NotAfter: notAfter, Test: b.Inventory.Test}
	if err := s.log.Append("page", record); err != nil { // on disk before a certificate leaves
		return pageAnswer{}, err
	}
	return pageAnswer{Chain: chain, Without: leave.Request == nil}, nil
}

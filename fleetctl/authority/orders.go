package authority

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"time"

	"mayfly/internal/audit"
	"mayfly/policies/bundle"
	"mayfly/policies/request"
)

// Events of the log. Specification constants.
const (
	EventRequest = "request"         // what was done by people's leave, before it was
	EventRefused = "request_refused" // what was not; among the log's refused files, which have a quota
)

// Record is what the log keeps of each order, before it is carried out.
type Record struct {
	request.Order
	Reason  string           `json:"reason,omitempty"`
	Nonce   string           `json:"nonce,omitempty"`
	SHA256  string           `json:"sha256,omitempty"` // of the request's bytes
	Made    time.Time        `json:"made,omitzero"`
	Expires time.Time        `json:"expires,omitzero"`
	People  []request.Person `json:"people"`
	Policy  uint64           `json:"policy"`                    // version of the signed policy that decided
	Without bool             `json:"without_request,omitempty"` // a test fleet whose policy has no [[operator]]: nobody was asked
	Test    bool             `json:"test"`
}

// Refused is what the log keeps of an order that was not carried out.
type Refused struct {
	request.Order        // what was asked for
	Code          string `json:"code"`
	Detail        string `json:"detail"`
	SHA256        string `json:"sha256,omitempty"` // of the request that was shown
	Policy        uint64 `json:"policy"`
	Test          bool   `json:"test"`
}

// Orders is how something is done by people's leave. The zero value remembers nothing and refuses.
type Orders struct {
	used Used
	log  *audit.Log
}

// New joins what is known of requests and the log that they go to.
func New(used Used, log *audit.Log) Orders { return Orders{used, log} }

// Decide asks for the leave, and changes nothing but the record of a refusal, which is a *request.Refusal.
func (o Orders) Decide(b *bundle.Bundle, asked request.Order, s *request.Signed, now time.Time) (request.Decision, error) {
	d, err := request.Decide(b.Policy, b.Inventory, asked, s, now)
	return d, o.Refuse(b, asked, s, err)
}

// Begin uses up the request, and writes down by whose leave this is done. Its refusals are *request.Refusal.
func (o Orders) Begin(b *bundle.Bundle, asked request.Order, d request.Decision, s *request.Signed, now time.Time) error {
	if !d.Allowed || o.log == nil {
		return o.Refuse(b, asked, s, request.Refuse(request.NotAllowed, "%s was not decided", asked))
	}
	record := Record{Order: asked, People: append([]request.Person{}, d.People...), Policy: b.Version, Without: d.Request == nil, Test: b.Inventory.Test}
	if r := d.Request; r != nil {
		if err := o.used.Spend(*r, now); err != nil {
			return o.Refuse(b, asked, s, err)
		}
		record.Reason, record.Nonce, record.SHA256, record.Made, record.Expires = r.Reason, r.Nonce, sum(s.Data), r.Made, r.Expires
	}
	return o.log.Append(EventRequest, record)
}

// Refuse puts a refusal on record and returns it. Any other error, or none, stays what it is. That the record could not be written does not hide why
// nothing is done.
func (o Orders) Refuse(b *bundle.Bundle, asked request.Order, s *request.Signed, err error) error {
	r, ok := errors.AsType[*request.Refusal](err)
	if !ok || o.log == nil {
		return err
	}
	record := Refused{Order: asked, Code: r.Reason, Detail: r.Err.Error(), Policy: b.Version, Test: b.Inventory.Test}
	if s != nil {
		record.SHA256 = sum(s.Data)
	}
	if lost := o.log.AppendRefused(EventRefused, record); lost != nil {
		return errors.Join(err, lost)
	}
	return err
}

func sum(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

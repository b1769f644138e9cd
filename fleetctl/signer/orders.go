package signer

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"mayfly/fleetctl/authority"
	"mayfly/internal/audit"
	"mayfly/internal/hint"
	"mayfly/policies/bundle"
	"mayfly/policies/request"
	"mayfly/rebuild/join"
)

// openUsed is what is known of requests, in signer/requests. The signer and `fleetctl ca` share it.
func openUsed(dir string) (authority.Used, error) {
	return authority.OpenUsed(filepath.Join(dir, keyDir, requestsDir))
}

// orders is how something is done by people's leave: decided by the signed policy, once for each request, and on record before it is done. Its refusals
// are *join.Refusal.
type orders struct{ authority.Orders }

// decide asks for the leave.
func (o orders) decide(b *bundle.Bundle, asked request.Order, s *request.Signed, now time.Time) (request.Decision, error) {
	d, err := o.Decide(b, asked, s, now)
	return d, refusedRequest(err)
}

// begin uses up the request, and writes down by whose leave this is done.
func (o orders) begin(b *bundle.Bundle, asked request.Order, d request.Decision, s *request.Signed, now time.Time) error {
	return refusedRequest(o.Begin(b, asked, d, s, now))
}

// refusedRequest turns a request's refusal into the protocol's. Any other error stays what it is.
func refusedRequest(err error) error {
	if r, ok := errors.AsType[*request.Refusal](err); ok {
		return join.Refuse(r.Reason, "%v", r.Err)
	}
	return err
}

// RequestHint names the mend of a refused request, or "".
func RequestHint(reason string) string {
	switch reason {
	case request.Missing, request.TooFew:
		return "with --sign KEY.pub where one person is enough; `fleetctl request make` and `request sign` for more, then --request FILE"
	case request.NoOperators, request.NotAllowed:
		return "the [[operator]] tables of the signed policy say who may: docs/formats/request.md"
	case request.Unsigned, request.KeyRefused:
		return "engineers of the policy sign it, with enrolled keys: `fleetctl request sign`; `fleetctl key list` shows which count"
	case request.TooMany:
		return "wait: what is a day older than a request's end is forgotten"
	case request.Malformed, request.OtherFleet, request.Other, request.Early, request.Expired, request.Used:
		return "`fleetctl request show FILE` says what it is for; `fleetctl request make` makes another"
	}
	return ""
}

// leaveForCA decides and records a step of the host CAs, which `fleetctl ca` takes where no signer may run. The caller holds the lock of the CAs, so
// that nobody else writes this log.
func leaveForCA(dir string, asked request.Order, s *request.Signed, now time.Time) (without bool, err error) {
	r, err := loadRules(dir)
	if err != nil {
		return false, err
	}
	b, err := r.bundle(now)
	if err != nil {
		return false, err
	}
	u, err := openUsed(dir)
	if err != nil {
		return false, err
	}
	log, err := audit.Open(audit.Options{Dir: filepath.Join(dir, keyDir, caLogDir), Name: audit.LogName("mayfly", r.trust.Fleet, "cas")})
	if err != nil {
		return false, fmt.Errorf("opening the log of CAs: %w", err)
	}
	o := orders{authority.New(u, log)}
	d, err := o.decide(b, asked, s, now)
	if err == nil {
		err = o.begin(b, asked, d, s, now)
	}
	err = errors.Join(err, log.Close())
	if refusal, ok := join.IsRefusal(err); ok {
		err = hint.New(err, "%s", RequestHint(refusal.Reason))
	}
	return d.Request == nil, err
}

package signer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"mayfly/internal/audit"
	"mayfly/internal/hint"
	"mayfly/policies/bundle"
	"mayfly/policies/request"
	"mayfly/rebuild/join"
)

// Bounds of what is remembered of requests.
const (
	maxUsed = 4096           // requests that are remembered at once
	usedFor = 24 * time.Hour // after a request's end: the clock may be set back
)

// requestRecord is what the log keeps of each order, before it is carried out.
type requestRecord struct {
	request.Order
	Reason  string           `json:"reason,omitempty"`
	Nonce   string           `json:"nonce,omitempty"`
	SHA256  string           `json:"sha256,omitempty"` // of the request's bytes
	Made    time.Time        `json:"made,omitzero"`
	Expires time.Time        `json:"expires,omitzero"`
	People  []request.Person `json:"people"`
	Without bool             `json:"without_request,omitempty"` // a test fleet whose policy has no [[operator]]: nobody was asked
	Test    bool             `json:"test"`
}

// used are the requests that were carried out, or tried: one empty file each, "EXPIRES-NONCE", in signer/requests. The signer and
// `fleetctl ca` share it.
type used struct{ dir string }

func openUsed(dir string) (used, error) {
	u := used{filepath.Join(dir, keyDir, requestsDir)}
	if err := os.MkdirAll(u.dir, 0o700); err != nil {
		return used{}, fmt.Errorf("opening the signer's state: %w", err)
	}
	return u, nil
}

// spend remembers durably that this request was used, or refuses it because it was. It forgets those that ended long ago.
func (u used) spend(r request.Request, now time.Time) (err error) {
	d, err := os.Open(u.dir)
	if err != nil {
		return fmt.Errorf("remembering a request: %w", err)
	}
	defer func() { err = errors.Join(err, d.Close()) }() // and its lock with it
	for err = syscall.EINTR; errors.Is(err, syscall.EINTR); {
		err = syscall.Flock(int(d.Fd()), syscall.LOCK_EX)
	}
	if err != nil {
		return fmt.Errorf("remembering a request: %w", err)
	}
	names, err := d.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("remembering a request: %w", err)
	}
	left := 0
	for _, name := range names {
		end, nonce, ok := strings.Cut(name, "-")
		seconds, err := strconv.ParseInt(end, 10, 64)
		switch {
		case ok && nonce == r.Nonce:
			return request.Refuse(request.Used, "request %s was used before", r.Nonce)
		case ok && err == nil && now.Sub(time.Unix(seconds, 0)) > usedFor:
			if err := os.Remove(filepath.Join(u.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("forgetting a request: %w", err)
			}
		default:
			left++
		}
	}
	if left >= maxUsed {
		return join.Refuse(join.RateLimited, "%d requests were used within %s", left, request.MaxLife+usedFor)
	}
	path := filepath.Join(u.dir, fmt.Sprintf("%d-%s", r.Expires.Unix(), r.Nonce))
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("remembering a request: %w", err)
	}
	if err := errors.Join(f.Sync(), f.Close(), d.Sync()); err != nil {
		return fmt.Errorf("remembering a request: %w", err)
	}
	return nil
}

// orders is how something is done by people's leave: decided by the signed policy, once for each request, and on record before it is done.
type orders struct {
	used used
	log  *audit.Log
}

// decide asks for the leave, and changes nothing. Its refusal is a *join.Refusal.
func (orders) decide(b *bundle.Bundle, asked request.Order, s *request.Signed, now time.Time) (request.Decision, error) {
	d, err := request.Decide(b.Policy, b.Inventory, asked, s, now)
	return d, refusedRequest(err)
}

// begin uses up the request, and writes down by whose leave this is done.
func (o orders) begin(b *bundle.Bundle, asked request.Order, d request.Decision, s *request.Signed, now time.Time) error {
	if !d.Allowed {
		return join.Refuse(request.NotAllowed, "%s was not decided", asked)
	}
	record := requestRecord{Order: asked, People: append([]request.Person{}, d.People...), Without: d.Request == nil, Test: b.Inventory.Test}
	if r := d.Request; r != nil {
		if err := o.used.spend(*r, now); err != nil {
			return refusedRequest(err)
		}
		record.Reason, record.Nonce, record.SHA256, record.Made, record.Expires = r.Reason, r.Nonce, sum(s.Data), r.Made, r.Expires
	}
	return o.log.Append("request", record)
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
	d, err := orders{}.decide(b, asked, s, now)
	if refusal, ok := join.IsRefusal(err); ok {
		return false, hint.New(err, "%s", RequestHint(refusal.Reason))
	}
	u, err := openUsed(dir)
	if err != nil {
		return false, err
	}
	log, err := audit.Open(audit.Options{Dir: filepath.Join(dir, keyDir, caLogDir), Name: audit.LogName("mayfly", r.trust.Fleet, "cas")})
	if err != nil {
		return false, fmt.Errorf("opening the log of CAs: %w", err)
	}
	err = errors.Join(orders{u, log}.begin(b, asked, d, s, now), log.Close())
	if refusal, ok := join.IsRefusal(err); ok {
		err = hint.New(err, "%s", RequestHint(refusal.Reason))
	}
	return d.Request == nil, err
}

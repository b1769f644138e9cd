package release

import (
	"fmt"
	"time"

	"mayfly/policies/trust"
)

// Reason codes of refused releases.
const (
	Unsigned   = "release_unsigned"    // too few people signed these bytes
	Unbuilt    = "release_unbuilt"     // too few builders say that they made the same
	Malformed  = "release_malformed"   // signed, but not what the format allows
	OtherFleet = "release_other_fleet" // signed for another fleet
	NotYet     = "release_not_yet"     // its time has not come
	Expired    = "release_expired"     // its time is over
	Older      = "release_older"       // below the trust policy's least release
)

// Refusal is why a release, or a part of it, is not used.
type Refusal struct {
	Reason string // one of the codes above, of a part, or of the ledger
	Err    error
}

func (r *Refusal) Error() string { return r.Reason + ": " + r.Err.Error() }

// Unwrap returns the detail.
func (r *Refusal) Unwrap() error { return r.Err }

// Refused makes a program exit with "refused by policy".
func (r *Refusal) Refused() bool { return true }

func refuse(reason, format string, args ...any) error {
	return &Refusal{Reason: reason, Err: fmt.Errorf(format, args...)}
}

// Open returns the statement in data if enough people and enough builders signed these exact bytes, and it is this fleet's and no older than the
// trust policy allows. Nothing is parsed before the signatures are checked. It says nothing about the time: At does, once
// the time is known. Its error is a *Refusal.
func Open(t *trust.Trust, data, sigs []byte) (*Statement, error) {
	if len(data) > MaxStatement {
		return nil, refuse(Malformed, "statement of %d bytes, more than %d", len(data), MaxStatement)
	}
	if _, err := t.Approved(Namespace, data, sigs); err != nil {
		return nil, &Refusal{Reason: Unsigned, Err: err}
	}
	if _, err := t.Built(BuildNamespace, data, sigs); err != nil {
		return nil, &Refusal{Reason: Unbuilt, Err: err}
	}
	s, err := Parse(data)
	if err != nil {
		return nil, &Refusal{Reason: Malformed, Err: err}
	}
	switch {
	case s.Fleet != t.Fleet:
		return nil, refuse(OtherFleet, "the release is for fleet %q, the trust policy for %q", s.Fleet, t.Fleet)
	case s.Version < t.MinRelease:
		return nil, refuse(Older, "version %d is older than %d", s.Version, t.MinRelease)
	}
	return s, nil
}

// At reports, as a *Refusal, that the statement may not be used at this time.
func (s *Statement) At(now time.Time) error {
	switch {
	case now.Before(s.NotBefore):
		return refuse(NotYet, "valid from %s, it is %s", s.NotBefore.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	case !now.Before(s.NotAfter):
		return refuse(Expired, "valid until %s, it is %s", s.NotAfter.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return nil
}

// Verify is Open and At together.
func Verify(t *trust.Trust, data, sigs []byte, now time.Time) (*Statement, error) {
	s, err := Open(t, data, sigs)
	if err != nil {
		return nil, err
	}
	if err := s.At(now); err != nil {
		return nil, err
	}
	return s, nil
}

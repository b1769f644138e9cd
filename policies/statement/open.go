package statement

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"mayfly/internal/sshsig"
	"mayfly/policies"
	"mayfly/policies/trust"
)

// Reason codes of a Refusal.
const (
	Malformed  = "statement_malformed"
	Unsigned   = "statement_unsigned" // by nobody, or by too few
	OtherFleet = "statement_other_fleet"
	FromFuture = "statement_from_future"
	Expired    = "statement_expired"
)

// maxSkew is how far clocks may differ.
const maxSkew = time.Minute

// maxSignatures of one approval that are looked at.
const maxSignatures = 16

// Refusal is why a statement counts for nothing.
type Refusal struct {
	Reason string // one of the codes above
	Err    error
}

func (r *Refusal) Error() string { return r.Reason + ": " + r.Err.Error() }
func (r *Refusal) Unwrap() error { return r.Err }

// Refused makes a program exit with "refused by policy".
func (r *Refusal) Refused() bool { return true }

func refuse(reason, format string, args ...any) error {
	return &Refusal{Reason: reason, Err: fmt.Errorf(format, args...)}
}

// Opened is a statement whose signatures were verified.
type Opened struct {
	Statement Statement
	Signers   []string // people of the trust policy, of an opening
	Keys      []string // whose signatures verify, "TYPE BASE64", of an approval
	Verified  []string // those of them whose signature says that its holder was verified
}

// ID names the statement in records.
func (o Opened) ID() string { return ID(o.Statement) }

// ID names a statement in records: its id, or SERVER/LIFE.
func ID(s Statement) string {
	switch s := s.(type) {
	case Approval:
		return s.ID
	case BreakGlass:
		return s.ID
	case Drained:
		return fmt.Sprintf("%s/%d", s.Server, s.Epoch)
	}
	return ""
}

// Kind is the kind that a statement names.
func Kind(s Statement) string {
	switch s.(type) {
	case Approval:
		return KindApproval
	case BreakGlass:
		return KindBreakGlass
	case Drained:
		return KindDrained
	}
	return ""
}

// Expires is when a statement ends.
func Expires(s Statement) time.Time {
	switch s := s.(type) {
	case Approval:
		return s.Expires
	case BreakGlass:
		return s.Expires
	case Drained:
		return s.Expires
	}
	return time.Time{}
}

// Open returns the statement in data if it is this fleet's, was not made in the future, has not ended, and is signed as its kind
// asks: an approval by any key, whose owner the policy has to know; an opening by as many approvers as the trust policy asks; a
// drained statement by a key of the signer. Its error is a *Refusal. With Expired the statement is returned as well: it was good.
func Open(t *trust.Trust, data, sigs []byte, now time.Time) (Opened, error) {
	s, err := Parse(data)
	if err != nil {
		return Opened{}, &Refusal{Malformed, err}
	}
	o := Opened{Statement: s}
	var fleet string
	var made time.Time
	switch s := s.(type) {
	case Approval:
		fleet, made = s.Fleet, s.Made
		o.Keys, o.Verified, err = signers(NamespaceApproval, data, sigs)
	case BreakGlass:
		fleet, made = s.Fleet, s.Made
		o.Signers, err = t.Approved(NamespaceBreakGlass, data, sigs)
	case Drained:
		fleet, made = s.Fleet, s.Made
		err = trust.VerifyAny(slices.Concat(t.TicketKeys, t.ListKeys), NamespaceDrained, data, sigs)
	}
	switch {
	case err != nil:
		return Opened{}, &Refusal{Unsigned, err}
	case fleet != t.Fleet:
		return Opened{}, refuse(OtherFleet, "it is for fleet %q, not %q", fleet, t.Fleet)
	case made.Sub(now) > maxSkew:
		return Opened{}, refuse(FromFuture, "it was made at %s", made.Format(time.RFC3339))
	case !now.Before(Expires(s)):
		return o, refuse(Expired, "it expired at %s", Expires(s).Format(time.RFC3339))
	}
	return o, nil
}

// signers returns the keys whose signatures verify, each once, and those of them that one was made with under user verification.
func signers(namespace string, data, sigs []byte) (keys, verified []string, err error) {
	blocks, err := sshsig.Split(sigs, maxSignatures)
	if err != nil {
		return nil, nil, err
	}
	why := errors.New("nobody signed it")
	for _, block := range blocks {
		s, err := sshsig.Parse(block)
		if err == nil {
			err = s.Verify(namespace, data)
		}
		if err != nil {
			why = err
			continue
		}
		key := trust.FormatKey(s.Key())
		if !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
		if s.UserVerified() && !slices.Contains(verified, key) {
			verified = append(verified, key)
		}
	}
	if len(keys) == 0 {
		return nil, nil, why
	}
	return keys, verified, nil
}

// Collect puts opened statements into the form in which package policies decides by them.
func Collect(list []Opened) policies.Statements {
	var s policies.Statements
	for _, o := range list {
		switch x := o.Statement.(type) {
		case Approval:
			s.Approvals = append(s.Approvals, policies.Approval{ID: x.ID, Engineer: x.Engineer, Servers: x.Servers, Ports: x.Ports,
				NotBefore: x.NotBefore, Expires: x.Expires, Keys: o.Keys, Verified: o.Verified})
		case BreakGlass:
			s.Openings = append(s.Openings, policies.Opening{ID: x.ID, Name: x.Name, Expires: x.Expires})
		case Drained:
			s.Drained = append(s.Drained, policies.Drained{Server: x.Server, Epoch: x.Epoch, Expires: x.Expires})
		}
	}
	return s
}

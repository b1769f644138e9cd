package request

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"mayfly/internal/sshsig"
	"mayfly/inventory"
	"mayfly/policies"
	"mayfly/policies/trust"
)

// Reason codes of a Refusal.
const (
	Malformed   = "request_malformed"
	OtherFleet  = "request_other_fleet"
	Other       = "request_other" // for something else than what it is shown for
	Early       = "request_early"
	Expired     = "request_expired"
	Used        = "request_used"         // said by whoever acts: this request was carried out, or tried, before
	Missing     = "request_missing"      // there is none, and the policy asks for one
	NoOperators = "request_no_operators" // the policy says of nobody that they may
	NotAllowed  = "request_not_allowed"  // the policy says of others that they may
	Unsigned    = "request_unsigned"     // no signature of it verifies
	KeyRefused  = "request_key_refused"  // some do, by keys that do not count
	TooFew      = "request_too_few"
	TooMany     = "request_too_many" // said by whoever acts: so many were used lately that no more are remembered
)

// Reasons are all of them.
var Reasons = []string{Malformed, OtherFleet, Other, Early, Expired, Used, Missing, NoOperators, NotAllowed, Unsigned, KeyRefused, TooFew, TooMany}

// Implementation constants.
const (
	maxSkew       = time.Minute // how far clocks may differ
	maxSignatures = 16          // of one request that are looked at
)

// Refusal is why nothing is done.
type Refusal struct {
	Reason string // one of the codes above
	Err    error
}

func (r *Refusal) Error() string { return r.Reason + ": " + r.Err.Error() }
func (r *Refusal) Unwrap() error { return r.Err }

// Refused makes a program exit with "refused by policy".
func (r *Refusal) Refused() bool { return true }

// Refuse makes a refusal.
func Refuse(reason, format string, args ...any) *Refusal {
	return &Refusal{Reason: reason, Err: fmt.Errorf(format, args...)}
}

// Signed is a request as it is carried: its exact bytes, and the detached signatures.
type Signed struct {
	Data       []byte `json:"data"`
	Signatures []byte `json:"signatures"`
}

// Person is somebody whose signature counts, for the record.
type Person struct {
	Name     string `json:"name"`
	Key      string `json:"key"` // fingerprint
	Evidence string `json:"evidence"`
}

// Decision is what was found of a request. The zero value is no leave.
type Decision struct {
	Allowed bool
	Request *Request // nil: there was none, and none is asked for (a test fleet)
	People  []Person // by whose leave
}

// Decide says whether this is to be done now, by the leave of the people who signed. Its error is a *Refusal. Without [[operator]] in the policy a fleet
// that is no test has nothing done, and a test fleet anything.
func Decide(p policies.Policy, f inventory.Fleet, asked Order, s *Signed, now time.Time) (Decision, error) {
	if len(p.Operators) == 0 {
		switch {
		case !f.Test:
			return Decision{}, Refuse(NoOperators, "the policy has no [[operator]]: nobody may have %s done", asked.Action)
		case s != nil:
			return Decision{}, Refuse(NoOperators, "the policy has no [[operator]]: this test fleet asks for no request, and takes none")
		}
		return Decision{Allowed: true}, nil
	}
	if s == nil {
		return Decision{}, Refuse(Missing, "%s takes a signed request", asked.Action)
	}
	r, err := Parse(s.Data)
	if err != nil {
		return Decision{}, &Refusal{Malformed, err}
	}
	switch {
	case r.Fleet != f.Name:
		return Decision{}, Refuse(OtherFleet, "it is for fleet %q, not %q", r.Fleet, f.Name)
	case !r.Order.Same(asked):
		return Decision{}, Refuse(Other, "it is for %s, not for %s", r.Order, asked)
	case r.Made.Sub(now) > maxSkew:
		return Decision{}, Refuse(Early, "it was made at %s, it is %s", r.Made.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	case !now.Before(r.Expires):
		return Decision{}, Refuse(Expired, "it expired at %s", r.Expires.Format(time.RFC3339))
	}
	people, err := Signers(p, *s)
	if err != nil {
		return Decision{}, err
	}
	by, err := enough(p, r.Action, people)
	if err != nil {
		return Decision{}, err
	}
	return Decision{Allowed: true, Request: &r, People: by}, nil
}

// Signers are the engineers whose signatures count, each once. Its error is a *Refusal: nobody's does.
func Signers(p policies.Policy, s Signed) ([]Person, error) {
	blocks, err := sshsig.Split(s.Signatures, maxSignatures)
	if err != nil {
		return nil, &Refusal{Unsigned, err}
	}
	var people []Person
	refusal := &Refusal{Unsigned, errors.New("nobody signed it")}
	for _, block := range blocks {
		sig, err := sshsig.Parse(block)
		if err == nil {
			err = sig.Verify(Namespace, s.Data)
		}
		if err != nil {
			if refusal.Reason == Unsigned {
				refusal.Err = err
			}
			continue
		}
		key := trust.FormatKey(sig.Key())
		name, evidence, v := p.SignerOf(key, sig.UserVerified())
		if !v.Allow {
			refusal = Refuse(KeyRefused, "%s: %s: %s", policies.Fingerprint(key), v.Reason, v.Detail)
			continue
		}
		if !slices.ContainsFunc(people, func(x Person) bool { return x.Name == name }) {
			people = append(people, Person{name, policies.Fingerprint(key), evidence})
		}
	}
	if len(people) == 0 {
		return nil, refusal
	}
	return people, nil
}

// enough finds a table of operators of which enough people signed, and says who they are.
func enough(p policies.Policy, action string, people []Person) ([]Person, error) {
	best := Refuse(NotAllowed, "no [[operator]] lets %s have %s done", Names(people), action)
	missing := 0
	for _, o := range p.OperatorsOf(action) {
		var of []Person
		for _, x := range people {
			if slices.Contains(o.Engineers, x.Name) {
				of = append(of, x)
			}
		}
		need := o.Needs(action)
		if len(of) >= need {
			return of, nil
		}
		if less := need - len(of); len(of) > 0 && (missing == 0 || less < missing) {
			missing = less
			best = Refuse(TooFew, "%s takes %d people of %s, and %s signed", action, need, strings.Join(o.Engineers, ", "), Names(of))
		}
	}
	return nil, best
}

// Names are the people's, for a sentence.
func Names(people []Person) string {
	var names []string
	for _, x := range people {
		names = append(names, x.Name)
	}
	return strings.Join(names, ", ")
}

package policies

import (
	"slices"
	"time"

	"mayfly/inventory"
)

// Statements are the signed statements beside the policy (package policies/statement) whose signatures were verified. What they
// are good for, and whether they are in force, is decided with each question. The zero value is none.
type Statements struct {
	Approvals []Approval
	Openings  []Opening
	Drained   []Drained
}

// Approval lets one engineer use grants that ask for somebody else's word.
type Approval struct {
	ID        string
	Engineer  string // who may go
	Servers   []string
	Ports     []uint16
	NotBefore time.Time
	Expires   time.Time
	Keys      []string // whose signatures verify, "TYPE BASE64"; whose keys these are is decided by the policy in force
	Verified  []string // those of Keys whose signature says that its holder was verified, by PIN or biometry
}

// Opening unseals a break-glass identity.
type Opening struct {
	ID      string
	Name    string
	Expires time.Time
}

// DrainedMargin is how long before its end a drained statement no longer counts: the signer lets the server's next life begin at its end, by a
// clock that may be ahead.
const DrainedMargin = time.Minute

// Drained says that a life of a server takes no traffic any more and ends with a rebuild.
type Drained struct {
	Server  string
	Epoch   uint64
	Expires time.Time
}

// Basis is what an allowance rests on beside the person.
type Basis struct {
	Grant    int    `json:"grant,omitempty"`    // number in the policy, from 1
	Approval string `json:"approval,omitempty"` // id
	Opening  string `json:"opening,omitempty"`  // id
	Drained  uint64 `json:"drained,omitempty"`  // life of the server that was drained
}

// approver is who gave an approval, if it is anybody who may: another engineer of the policy in force, by an enrolled key whose
// evidence is accepted.
func (p Policy) approver(a Approval, owners map[string]owner) (string, Verdict) {
	v := deny(ApprovalMissing, "no engineer's signature on approval %s", a.ID)
	for _, key := range a.Keys {
		name, why := owners[key].name, owners[key].verdict
		switch {
		case name == "":
			v = deny(ApprovalMissing, "approval %s: the key is no engineer's", a.ID)
		case !why.Allow:
			v = deny(ApprovalMissing, "approval %s: %s", a.ID, why.Detail)
		case p.SSH.VerifyRequired && securityKey(key) && !slices.Contains(a.Verified, key): // a card's key says it by its evidence alone
			v = deny(ApprovalMissing, "approval %s: the signature of %s was made without user verification", a.ID, name)
		case name == a.Engineer:
			v = deny(ApprovalOwn, "approval %s is %s's own", a.ID, name)
		default:
			return name, allow("approved by %s", name)
		}
	}
	return "", v
}

// owner is the engineer whose enrolled key something is, and whether the key is accepted.
type owner struct {
	name    string
	verdict Verdict
}

// owners finds out whose the keys of these approvals are, in one pass over the policy however many there are. Only engineers' keys are in it.
func (p Policy) owners(list []Approval) map[string]owner {
	found := map[string]owner{}
	for _, a := range list {
		for _, key := range a.Keys {
			found[key] = owner{}
		}
	}
	if len(found) == 0 {
		return found
	}
	for i := range p.Engineers {
		e := &p.Engineers[i] // not copied: a key with its evidence is large
		for j := range e.Keys {
			k := &e.Keys[j]
			if o, asked := found[k.Public]; asked && o.name == "" {
				found[k.Public] = owner{e.Name, p.accept(e.Name, *k)}
			}
		}
	}
	return found
}

// Owner returns the engineer whose enrolled key this is, if its evidence is accepted.
func (p Policy) Owner(public string) (engineer string, v Verdict) {
	switch o := p.owners([]Approval{{Keys: []string{public}}})[public]; {
	case o.name == "":
		return "", deny(KeyUnknown, "the key is no engineer's")
	case !o.verdict.Allow:
		return "", o.verdict
	default:
		return o.name, allow("%s", o.name)
	}
}

// DecideApproval decides whether an approval can be good for anything in this policy: as much as can be said without a target.
func (p Policy) DecideApproval(a Approval, now time.Time) Verdict {
	_, v := p.approver(a, p.owners([]Approval{a}))
	if !v.Allow {
		return v
	}
	if !slices.ContainsFunc(p.Engineers, func(e Engineer) bool { return e.Name == a.Engineer }) {
		return deny(UserUnknown, "no engineer %q", a.Engineer)
	}
	if !now.Before(a.Expires) {
		return deny(ApprovalExpired, "approval %s expired at %s", a.ID, a.Expires.UTC().Format(time.RFC3339))
	}
	return v
}

// approved finds an approval in force for this engineer, server and port. Without one it says what comes closest.
func (p Policy) approved(l Login, t Target, f inventory.Fleet, s Statements, now time.Time) (id string, v Verdict) {
	v = deny(ApprovalMissing, "no approval for %s to port %d of %s", l.User, t.Port, t.Server)
	var list []Approval
	region := f.RegionOf(t.Server)
	for _, a := range s.Approvals {
		to := Grant{Servers: a.Servers, Ports: a.Ports}
		if a.Engineer == l.User && to.opens(t.Port) && to.Covers(t.Server, region) {
			list = append(list, a)
		}
	}
	owners := p.owners(list)
	for _, a := range list {
		if _, why := p.approver(a, owners); !why.Allow {
			v = why
			continue
		}
		switch {
		case !now.Before(a.Expires):
			v = deny(ApprovalExpired, "approval %s expired at %s", a.ID, a.Expires.UTC().Format(time.RFC3339))
		case now.Before(a.NotBefore):
			v = deny(ApprovalEarly, "approval %s begins at %s", a.ID, a.NotBefore.UTC().Format(time.RFC3339))
		default:
			return a.ID, allow("approval %s", a.ID)
		}
	}
	return "", v
}

// drained finds the newest statement that the server was drained. One of an older life says nothing.
func (s Statements) drained(server string, now time.Time) (epoch uint64, v Verdict) {
	var newest Drained
	for _, d := range s.Drained {
		if d.Server == server && d.Epoch > newest.Epoch {
			newest = d
		}
	}
	switch {
	case newest.Epoch == 0:
		return 0, deny(ServerNotDrained, "nothing says that %s is drained", server)
	case !now.Before(newest.Expires.Add(-DrainedMargin)):
		return 0, deny(ServerNotDrained, "that life %d of %s is drained was said until %s", newest.Epoch, server, newest.Expires.UTC().Format(time.RFC3339))
	}
	return newest.Epoch, allow("life %d of %s is drained", newest.Epoch, server)
}

// opened finds an opening in force of a break-glass identity; of several the one that lasts longest.
func (s Statements) opened(name string, now time.Time) (Opening, bool) {
	var best Opening
	for _, o := range s.Openings {
		if o.Name == name && now.Before(o.Expires) && o.Expires.After(best.Expires) {
			best = o
		}
	}
	return best, best.ID != ""
}

// NextChange is the first moment after now at which time alone may change a decision: a window, a statement or the policy
// begins or ends. It is the zero time if there is none. A login's certificate has an end of its own (Certificate.End).
func (p Policy) NextChange(s Statements, now time.Time) time.Time {
	var next time.Time
	consider := func(t time.Time) {
		if t.After(now) && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	consider(p.Expires)
	for _, g := range p.Grants {
		for _, w := range g.Windows {
			if t, ok := w.next(now); ok {
				consider(t)
			}
		}
	}
	for _, a := range s.Approvals {
		consider(a.NotBefore)
		consider(a.Expires)
	}
	for _, o := range s.Openings {
		consider(o.Expires)
	}
	for _, d := range s.Drained {
		consider(d.Expires.Add(-DrainedMargin))
	}
	return next
}

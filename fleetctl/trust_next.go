package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"mayfly/internal/command"
	"mayfly/internal/hint"
	"mayfly/policies/trust"
)

// nextTrustFile is the trust policy that waits for signatures.
func (d state) nextTrustFile() string { return d.path("trust-next.json") }

// nextTrust is a trust policy that waits for signatures, beside the one in force.
type nextTrust struct {
	old, next            *trust.Trust
	data, sigs           []byte   // of next
	byOld, bySafe, byNew []string // who signed: old approvers, recovery people, new approvers
}

const proposeHint = "`fleetctl trust propose` makes it"

// nextTrust reads what waits. It has to follow what is in force, whoever signed it: what could never be in force is not signed.
func (d state) nextTrust() (*nextTrust, error) {
	n := new(nextTrust)
	var err error
	if n.old, _, err = d.trust(); err != nil {
		return nil, err
	}
	if n.data, err = readBounded(d.nextTrustFile(), proposeHint, trust.MaxSize); err != nil {
		return nil, err
	}
	if n.sigs, err = readSignatures(d.nextTrustFile()); err != nil {
		return nil, err
	}
	if n.next, err = trust.Parse(n.data); err != nil {
		return nil, command.Refuse(hint.New(fmt.Errorf("%s: %s: %w", d.nextTrustFile(), trust.Malformed, err), "%s anew", proposeHint))
	}
	if err := trust.Follows(n.old, n.next, trust.ByApprovers); err != nil {
		return nil, command.Refuse(hint.New(fmt.Errorf("%s: %w", d.nextTrustFile(), err), "%s anew, from what is in force", proposeHint))
	}
	n.count()
	return n, nil
}

// count finds out who signed.
func (n *nextTrust) count() {
	n.byOld = have(n.old.Approved(trust.Namespace, n.data, n.sigs))
	n.bySafe = have(n.old.Recovered(trust.Namespace, n.data, n.sigs))
	n.byNew = have(n.next.Approved(trust.Namespace, n.data, n.sigs))
}

// have are the people who signed, whether they are enough or not.
func have(people []string, err error) []string {
	if few := (*trust.NotApproved)(nil); errors.As(err, &few) {
		return few.Have
	}
	return people
}

// roles say as who a person of this key signs.
func (n *nextTrust) roles(line string) (roles []string) {
	for _, r := range []struct {
		as     string
		people []trust.Person
	}{{"approver", n.old.Approvers}, {"recovery", n.old.Recovery.People}, {"new approver", n.next.Approvers}} {
		for _, p := range r.people {
			if slices.Contains(p.Keys, line) {
				roles = append(roles, r.as+" "+p.Name)
			}
		}
	}
	return roles
}

// standing says in a few lines how far it has come.
func (n *nextTrust) standing() []string {
	line := func(what string, have []string, need int) string {
		names := strings.Join(have, ", ")
		if names == "" {
			names = "nobody"
		}
		return fmt.Sprintf("%s: %d of %d (%s)", what, len(have), need, names)
	}
	lines := []string{line("old approvers", n.byOld, n.old.Threshold)}
	if n.old.Recovery.Threshold > 0 {
		lines = append(lines, line("or recovery", n.bySafe, n.old.Recovery.Threshold))
	}
	return append(lines, line("and new approvers", n.byNew, n.next.Threshold))
}

// toCome follows the name of an approver whom the trust policy that waits would make one.
const toCome = " (next)"

// signers are the approvers, and beside them those whom the trust policy that waits would make approvers: what they sign now counts once it is in
// force, so that nothing is short of signatures then. Their signatures make nobody reach a threshold before.
func (d state) signers(t *trust.Trust) *trust.Trust {
	n, err := d.nextTrust()
	if err != nil {
		return t // none waits, or one that could never be in force
	}
	all := *t
	all.Approvers = slices.Clone(t.Approvers)
	for _, p := range n.next.Approvers {
		keys := slices.DeleteFunc(slices.Clone(p.Keys), func(key string) bool {
			return slices.ContainsFunc(t.Approvers, func(q trust.Person) bool { return slices.Contains(q.Keys, key) })
		})
		if len(keys) > 0 {
			all.Approvers = append(all.Approvers, trust.Person{Name: p.Name + toCome, Keys: keys})
		}
	}
	return &all
}

// present are the people of an approval who count now, and a note of who will.
func (a approval) present(c *command.Call) approval {
	isSoon := func(name string) bool { return strings.HasSuffix(name, toCome) }
	if isSoon(a.person) {
		fmt.Fprintf(c.Stderr, "fleetctl: note: the signature of %s counts once the next trust policy is in force\n", strings.TrimSuffix(a.person, toCome))
	}
	a.people = slices.DeleteFunc(a.people, isSoon)
	return a
}

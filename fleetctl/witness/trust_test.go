package witness

import (
	"errors"
	"testing"

	"mayfly/policies/bundle"
	"mayfly/policies/trust"
	"mayfly/policies/witness"
)

// TestTrustIsFollowed: once a trust policy follows, a bundle of the old approvers is not taken any more and one of the new is; what was published before is
// remembered over a restart all the same; where it cannot be followed nothing is taken.
func TestTrustIsFollowed(t *testing.T) {
	l := newLab(t)
	check(t, l.Close())
	newest, steps, broken := l.trust, []trust.Change(nil), error(nil)
	l.options.Follow = func() (*trust.Trust, []trust.Change, error) { return newest, steps, broken }
	l.open()
	_, err := l.Publish(l.publication(1, 2, 0))
	check(t, err)
	second := *l.trust
	cy := newSigner(t)
	second.Version, second.Previous = 2, l.trust.Sum()
	second.Approvers = []trust.Person{second.Approvers[0], {Name: "cy", Keys: []string{trust.FormatKey(cy.PublicKey())}}}
	check(t, second.Check())
	newest, steps = &second, []trust.Change{{Trust: &second, How: trust.ByApprovers}}
	if _, err := l.Publish(l.publication(2, 2, 0)); code(err) != bundle.Unsigned {
		t.Errorf("signed by the old approvers: got %v, want %s", err, bundle.Unsigned)
	}
	check(t, l.Close())
	l.open()
	if v := l.Newest(witness.SubjectPolicy); v != 1 {
		t.Errorf("after a restart: got %d, want 1", v)
	}
	l.approvers[1] = cy
	_, err = l.Publish(l.publication(2, 2, 0))
	check(t, err)
	check(t, l.Close())
	l.open() // by what was published under the step
	if v := l.Newest(witness.SubjectPolicy); v != 2 {
		t.Errorf("after another restart: got %d, want 2", v)
	}
	broken = errors.New("a fork")
	if _, err := l.Publish(l.publication(3, 2, 0)); code(err) != "trust_not_followed" {
		t.Errorf("got %v, want trust_not_followed", err)
	}
	if _, err := Open(l.options); !errors.Is(err, broken) {
		t.Errorf("a start: got %v", err)
	}
}

func code(err error) string {
	if r := (*Refusal)(nil); errors.As(err, &r) {
		return r.Code
	}
	return ""
}

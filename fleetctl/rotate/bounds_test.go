package rotate

import (
	"testing"

	"mayfly/policies"
	"mayfly/rebuild/join"
	"mayfly/rebuild/release"
	"mayfly/rebuild/ticket"
)

// TestBoundsAgree: what a policy allows, releases, tickets and servers allow too. They keep bounds of their own because the stub,
// which links some of them, links no policy.
func TestBoundsAgree(t *testing.T) {
	if release.MaxLife != policies.MaxAge || ticket.MaxAge != policies.MaxAge {
		t.Errorf("longest life: a release allows %s, a ticket %s, a policy %s", release.MaxLife, ticket.MaxAge, policies.MaxAge)
	}
	if join.MaxDrain != policies.MaxDrain {
		t.Errorf("longest drain: a server obeys %s, a policy allows %s", join.MaxDrain, policies.MaxDrain)
	}
	if policies.MaxBoot+ticketSlack > ticket.MaxWindow {
		t.Errorf("a boot may take %s, and its ticket lives %s at most", policies.MaxBoot, ticket.MaxWindow)
	}
}

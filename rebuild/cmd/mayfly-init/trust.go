package main

import (
	"errors"
	"path/filepath"

	"mayfly/policies/trust"
	steps "mayfly/policies/trust/chain"
	"mayfly/rebuild/join"
)

// gateChain is where the bastion looks for trust policies that follow its own.
var gateChain = filepath.Join(filepath.Dir(gateTrust), "trust")

// newTrust takes the step from the trust policy of this life to the next, if that follows by signatures: from then on policies count by who has a
// say then. One that it has already, or that leaves a step out, changes nothing; the policy in force stays until another comes.
func (m *machine) newTrust(step join.Trust) error {
	m.policy.Lock()
	defer m.policy.Unlock()
	if step.Version != m.papers.trust.Version+1 {
		return nil
	}
	next, err := trust.Advance(m.papers.trust, step.File, step.Sig)
	if r := (*trust.Refusal)(nil); errors.As(err, &r) {
		return refuse(r.Reason, "%w", r.Err)
	}
	if err != nil {
		return err
	}
	if m.gate != nil {
		if err := steps.Write(gateChain, next.Trust.Version, step.File, step.Sig); err != nil {
			return err
		}
	}
	m.papers.trust = next.Trust
	m.con.stage("trust policy %d in force, by %s", next.Trust.Version, next.How)
	return nil
}

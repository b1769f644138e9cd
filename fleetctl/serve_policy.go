package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"mayfly/policies/bundle"
	"mayfly/policies/trust"
	"mayfly/policies/trust/chain"
	"mayfly/rebuild/join"
)

// policyInterval is how often a newer bundle is looked for.
const policyInterval = time.Second

// policy is the signed bundle in force; a newer one replaces it when enough people have signed it.
type policy struct {
	d     state
	trust *trust.Trust
	log   *slog.Logger

	actUnder func(*bundle.Bundle) error // remembers it durably, or refuses

	mu         sync.Mutex // guards the rest, and trust
	trusted    []byte     // the bytes of trust
	steps      []join.Trust
	stepsTo    uint64 // the version that steps lead to
	bundle     *bundle.Bundle
	data, sigs []byte
	refused    string // the last refusal, said once
}

func openPolicy(ctx context.Context, d state, t *trust.Trust, log *slog.Logger) (*policy, error) {
	seen, err := d.policySeen(ctx)
	if err != nil {
		return nil, err
	}
	b, err := d.bundle(t, seen, time.Now())
	if err != nil {
		return nil, err
	}
	if err := needsController(b.Inventory); err != nil {
		return nil, err
	}
	p := &policy{d: d, trust: t, log: log}
	if p.trusted, err = t.Marshal(); err != nil {
		return nil, err
	}
	p.data, p.sigs, err = d.bundleBytes()
	if err != nil {
		return nil, err
	}
	// Read twice: believe the second reading only by its own signatures.
	p.bundle, err = bundle.Open(t, p.data, p.sigs, time.Now(), b.Version)
	return p, err
}

func (p *policy) current() *bundle.Bundle {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bundle
}

// bytes are the bundle in force with its signatures, for servers, which check both by themselves.
func (p *policy) bytes() (data, sigs []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.data, p.sigs
}

// watch takes over newer bundles until ctx ends.
func (p *policy) watch(ctx context.Context) {
	tick := time.NewTicker(policyInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			p.reload(time.Now())
		}
	}
}

func (p *policy) reload(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	changed, err := p.follow()
	if err != nil {
		p.refuse("the old trust policy stays in force", err)
		return
	}
	data, sigs, err := p.d.bundleBytes()
	if err == nil && !changed && bytes.Equal(data, p.data) && bytes.Equal(sigs, p.sigs) {
		return
	}
	var b *bundle.Bundle
	if err == nil {
		b, err = bundle.Open(p.trust, data, sigs, now, p.bundle.Version)
	}
	if err == nil {
		err = p.actUnder(b)
	}
	if err != nil {
		p.refuse("the old policy stays in force", err)
		return
	}
	if changed && b.Version == p.bundle.Version && bytes.Equal(data, p.data) {
		p.sigs, p.refused = sigs, ""
		return
	}
	p.log.Info("policy in force", "version", b.Version, "was", p.bundle.Version)
	p.bundle, p.data, p.sigs, p.refused = b, data, sigs, ""
}

// refuse says once why something new is not in force.
func (p *policy) refuse(what string, err error) {
	if p.refused != err.Error() {
		p.refused = err.Error()
		p.log.Warn(what, "version", p.bundle.Version, "error", err)
	}
}

// follow takes over a trust policy that was put in force, if it follows the present one by signatures, and reports whether it did. The caller holds mu.
func (p *policy) follow() (changed bool, err error) {
	data, err := readBounded(p.d.trustFile(), "", trust.MaxSize)
	if err != nil || bytes.Equal(data, p.trusted) {
		return false, err
	}
	newest, steps, err := chain.Reach(p.trust, data, p.d.chainDir())
	if err != nil {
		return false, err
	}
	for _, s := range steps {
		p.log.Warn("trust policy in force", "version", s.Trust.Version, "how", s.How, "by", s.Old, "new_approvers", s.New)
	}
	p.trust, p.trusted = newest, data
	return true, nil
}

// lastSteps are the last steps of the trust policy in force, for servers, which take them by themselves.
func (p *policy) lastSteps() []join.Trust {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stepsTo == p.trust.Version {
		return p.steps
	}
	var steps []join.Trust
	for v := max(2, int64(p.trust.Version)-join.MaxTrustSteps+1); v <= int64(p.trust.Version); v++ {
		data, sigs, err := chain.Step(p.d.chainDir(), uint64(v))
		if err != nil || data == nil {
			p.refuse("servers get no trust policy before their next life", fmt.Errorf("step %d is not there: %w", v, err))
			return nil
		}
		steps = append(steps, join.Trust{Version: uint64(v), File: data, Sig: sigs})
	}
	p.steps, p.stepsTo = steps, p.trust.Version
	return steps
}

// inForce are the trust policy and the bundle in force.
func (p *policy) inForce() (*trust.Trust, *bundle.Bundle) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.trust, p.bundle
}

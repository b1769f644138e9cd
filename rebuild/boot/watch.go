package boot

import (
	"context"
	"crypto/sha256"
	"time"

	"mayfly/rebuild/join"
)

// watch forwards what others wrote: drain orders, a newer policy, revocations, the ends of lives, and the proofs that the ledger holds them.
func (s *service) watch(ctx context.Context) {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := s.forward(ctx); err != nil && ctx.Err() == nil {
			s.Log.Error("forwarding orders", "error", err)
		}
		if now := s.now(); s.own.due(now) {
			if err := s.own.renew(ctx, now); err != nil && ctx.Err() == nil {
				s.Log.Error("renewing", "error", err)
				s.own.retry(now.Add(certificateAttempts))
			}
		}
	}
}

// forward looks once at the store and the policy on behalf of all streams.
func (s *service) forward(ctx context.Context) error {
	open := s.streams.all()
	if len(open) == 0 {
		return nil
	}
	drains, err := s.Store.Drains(ctx)
	if err != nil {
		return err
	}
	extensions, err := s.Store.Extensions(ctx)
	if err != nil {
		return err
	}
	restarts, err := s.Store.Restarts(ctx)
	if err != nil {
		return err
	}
	data, sig := s.Bundle()
	var steps []join.Trust
	if s.Steps != nil {
		steps = s.Steps()
	}
	s.proofs.look()
	policy := sha256.Sum256(append(append([]byte(nil), data...), sig...))
	for _, st := range open {
		present, err := s.Store.Server(ctx, st.name)
		if err != nil {
			return err
		}
		revoked, err := s.Store.Revoked(ctx, st.name, st.epoch)
		if err != nil {
			return err
		}
		if revoked || present.Epoch != st.epoch {
			s.Log.Warn("cutting a stream", "server", st.name, "epoch", st.epoch, "revoked", revoked)
			st.cut()
			continue
		}
		for _, step := range steps {
			if step.Version > st.trust {
				st.trust = step.Version
				st.order(join.ToServer{Trust: &step})
			}
		}
		if len(data) > 0 && st.policy != policy {
			st.policy = policy
			st.order(join.ToServer{Policy: &join.Policy{Bundle: data, BundleSig: sig}})
		}
		if !st.proven {
			if l := s.proofs.of(st.life); l != nil {
				st.proven = true
				st.order(join.ToServer{Ledger: l})
			}
		}
		if e, ok := extensions[st.name]; ok && e.Epoch == st.epoch && len(e.Statement) > 0 { // a store that was restored knows only that there is one
			if sum := sha256.Sum256(e.Statement); st.extended != sum {
				st.extended = sum
				st.order(join.ToServer{Extension: &join.Signed{File: e.Statement, Sig: e.Sig}})
			}
		}
		if r, ok := restarts[st.name]; ok && r.Epoch == st.epoch && s.now().Before(r.NotAfter) {
			if sum := sha256.Sum256(r.File); st.restart != sum {
				st.restart = sum
				st.order(join.ToServer{Order: &join.Signed{File: r.File, Sig: r.Sig}})
			}
		}
		if d, ok := drains[st.name]; ok && d.Epoch == st.epoch && !st.drained {
			st.drained = true
			st.order(join.ToServer{Drain: &join.Drain{Limit: d.Limit}})
		}
	}
	return nil
}

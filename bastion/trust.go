package bastion

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/policies/trust"
	"mayfly/policies/trust/chain"
)

// chainName is the directory of later trust policies beside the one that bastion.toml names, where it names no other.
const chainName = "trust"

// trustPlace is where whom the bastion trusts comes from.
type trustPlace struct {
	root  string // the trust policy that is believed as it lies there
	chain string // directory of those that follow it; empty: beside the root
	seen  string // file that remembers the newest that was in force; empty: nothing is remembered
}

func (c Config) trustPlace() trustPlace {
	return trustPlace{root: c.Trust, chain: c.TrustChain, seen: filepath.Join(c.Audit, "trust_version")}
}

func (p trustPlace) directory() string {
	if p.chain != "" {
		return p.chain
	}
	return filepath.Join(filepath.Dir(p.root), chainName)
}

// trustBroken says that it cannot be told whom to trust: what lies there does not follow, or leads back.
type trustBroken struct{ err error }

func (e *trustBroken) Error() string { return e.err.Error() }
func (e *trustBroken) Unwrap() error { return e.err }

// load returns the newest trust policy, and the steps to it.
func (p trustPlace) load() (*trust.Trust, []trust.Change, error) {
	data, err := durable.ReadFile(p.root, trust.MaxSize)
	if err != nil {
		return nil, nil, hint.New(fmt.Errorf("reading trust policy: %w", err), "%s", readHint(err, p.root, "fleetctl init makes it"))
	}
	root, err := trust.Parse(data)
	if err != nil {
		return nil, nil, fmt.Errorf("reading trust policy %s: %w", p.root, err)
	}
	var newest *trust.Trust
	var steps []trust.Change
	if p.seen == "" {
		newest, steps, err = chain.Follow(root, p.directory())
	} else {
		newest, steps, err = chain.Load(root, p.directory(), p.seen)
	}
	if unread(err) {
		return nil, nil, err
	}
	if err != nil {
		return nil, nil, &trustBroken{err}
	}
	return newest, steps, nil
}

// stamp changes with the root, and with anything in the directory.
func (p trustPlace) stamp() fileStamp {
	all := stampOf(p.root)
	entries, err := os.ReadDir(p.directory())
	if err != nil {
		return all
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			continue // it has gone: the next look sees that
		}
		s := stampFrom(info)
		all.size += s.size + 1
		all.inode += s.inode
		all.changed += s.changed
	}
	return all
}

// distrusted is what is left of a confirmation when the policy in force could not be read again and it cannot be told any more that those who
// signed it have a say: a newer trust policy is in force, or none can be followed. Nil: it stays as it was.
func (c *confirmation) distrusted(t *trust.Trust, err error) *confirmation {
	broken := (*trustBroken)(nil)
	switch {
	case c == nil || unread(err):
		return nil
	case errors.As(err, &broken):
		t = c.trust
	case t == nil || t.Version == c.trust.Version:
		return nil
	}
	d := &confirmation{trust: t, urls: c.urls, version: c.version, sum: c.sum, grace: c.grace, ask: c.ask, broken: err.Error()}
	d.last, _ = c.state()
	return d
}

// seen is what is remembered of the trust policy.
func (c *confirmation) seenTrust() chain.Seen {
	if c == nil || c.trust == nil || c.trust.Version == 0 {
		return chain.Seen{}
	}
	return chain.Seen{Version: c.trust.Version, Sum: c.trust.Sum()}
}

// sayTrust tells of each step of the trust policy that is new, loudly where it was taken with keys from safes.
func (s *Server) sayTrust(old, now *confirmation) {
	if old == nil || now == nil || old.trust.Version == now.trust.Version {
		return
	}
	_, steps, err := s.config.trustPlace().load()
	if err != nil {
		return // it has changed again: the next reload says why
	}
	for _, step := range steps {
		if v := step.Trust.Version; v > old.trust.Version && v <= now.trust.Version {
			s.log.Warn("trust policy in force", "version", v, "how", step.How, "by", step.Old, "new_approvers", step.New, "sha256", step.Trust.Sum())
		}
	}
}

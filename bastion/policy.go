package bastion

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/net/bpf"

	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/policies"
	"mayfly/policies/bundle"
	"mayfly/policies/trust"
)

// Implementation constants of loading.
const (
	pollInterval = time.Second
	decideEvery  = time.Minute // a policy's own expiry reaches live sessions within this
)

// ruling is everything that follows from one policy bundle and one host certificate. It never changes; a new one replaces it.
type ruling struct {
	bundle *bundle.Bundle
	limits policies.Limits
	keys   *hostKeys
	ssh    *ssh.ServerConfig
	filter []bpf.RawInstruction

	statements policies.Statements // beside the policy, verified; replaced by take and takeStatements alone
}

// rule derives a ruling, and refuses what cannot be served safely.
func rule(b *bundle.Bundle, keys *hostKeys) (*ruling, error) {
	config, err := baseConfig(b.Policy.SSH.Level, keys)
	if err != nil {
		return nil, err
	}
	filter, err := listFilter(b.Policy.SSH.Allow)
	if err != nil {
		return nil, hint.New(err, "shorten ssh.allow: wider prefixes take fewer instructions")
	}
	return &ruling{bundle: b, limits: b.Policy.Limits(), keys: keys, ssh: config, filter: filter}, nil
}

// load reads trust, bundle, host key and certificate from the configured files.
func load(c Config, minVersion uint64, now time.Time) (*ruling, error) {
	b, err := loadBundle(c, minVersion, now)
	if err != nil {
		return nil, err
	}
	keys, err := loadHostKeys(c.HostKey, c.HostCertificate, now)
	if err != nil {
		return nil, err
	}
	return rule(b, keys)
}

func loadBundle(c Config, minVersion uint64, now time.Time) (*bundle.Bundle, error) {
	t, err := loadTrust(c.Trust)
	if err != nil {
		return nil, err
	}
	data, err := readBounded(c.Bundle, bundle.MaxSize)
	if err != nil {
		return nil, hint.New(fmt.Errorf("reading policy bundle: %w", err), "fleetctl policy bundle makes it, fleetctl policy sign signs it")
	}
	signatures, err := readBounded(c.Bundle+".sig", trust.MaxSignatureBytes)
	if errors.Is(err, fs.ErrNotExist) {
		signatures, err = nil, nil // unsigned, as Open will say
	}
	if err != nil {
		return nil, fmt.Errorf("reading policy bundle's signatures: %w", err)
	}
	b, err := bundle.Open(t, data, signatures, now, minVersion)
	if err != nil {
		return nil, hint.New(fmt.Errorf("opening policy bundle %s: %w", c.Bundle, err), "%s", bundleHint(err))
	}
	return b, nil
}

func loadTrust(path string) (*trust.Trust, error) {
	data, err := readBounded(path, trust.MaxSize)
	if err != nil {
		return nil, hint.New(fmt.Errorf("reading trust policy: %w", err), "fleetctl init makes it")
	}
	t, err := trust.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("reading trust policy %s: %w", path, err)
	}
	return t, nil
}

func bundleHint(err error) string {
	var refusal *bundle.Refusal
	if !errors.As(err, &refusal) {
		return "fleetctl policy check says what is wrong"
	}
	switch refusal.Reason {
	case bundle.Unsigned:
		return "fleetctl policy sign --key FILE adds an approver's signature"
	case bundle.Expired:
		return "raise the policy's version and expiry, make a new bundle and have it signed"
	case bundle.Older:
		return "a newer policy was in force here; raise the version above it and have it signed again"
	}
	return "fleetctl policy check says what is wrong"
}

// versionFile remembers the newest policy version that was in force, so that a restart cannot go back.
func versionFile(c Config) string { return c.Audit + ".policy" }

func seenVersion(c Config) (uint64, error) {
	data, err := readBounded(versionFile(c), 64)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("reading the newest policy version seen: %w", err)
	}
	version, err := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("reading the newest policy version seen: %s: %w", versionFile(c), err)
	}
	return version, nil
}

func rememberVersion(c Config, version uint64) error {
	return durable.WriteFile(versionFile(c), fmt.Appendf(nil, "%d\n", version), 0o600)
}

// stamp is how a change of files is noticed.
type stamp [4]fileStamp

type fileStamp struct {
	size int64
	at   time.Time
}

func (c Config) stamp() stamp {
	var s stamp
	for i, path := range []string{c.Bundle, c.Bundle + ".sig", c.HostCertificate, c.HostKey} {
		if info, err := os.Stat(path); err == nil {
			s[i] = fileStamp{info.Size(), info.ModTime()}
		}
	}
	return s
}

// policyRecord says which policy is in force, or why a new one is not.
type policyRecord struct {
	Outcome            string    `json:"outcome"` // "in_force" or "kept_old"
	Version            uint64    `json:"version"` // in force
	Expires            time.Time `json:"expires"`
	Level              string    `json:"level"`
	CertificateExpires time.Time `json:"host_certificate_expires"`
	Cut                int       `json:"cut"` // sessions and targets that ended by it
	Detail             string    `json:"detail,omitempty"`
}

func (r *ruling) record(outcome string) policyRecord {
	return policyRecord{Outcome: outcome, Version: r.bundle.Version, Expires: r.bundle.Expires.UTC(),
		Level: string(r.bundle.Policy.SSH.Level), CertificateExpires: r.keys.validBefore().UTC()}
}

// watch reloads when files have changed and stayed the same for one interval, or when asked to, and keeps the counted
// refusals and live sessions up to date.
func (s *Server) watch(ctx context.Context, reload <-chan os.Signal) {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	loaded := s.loaded
	previous := loaded
	decided := time.Now()
	again := false // the new policy was good and could not be taken
	for {
		asked := false
		select {
		case <-ctx.Done():
			return
		case <-reload:
			asked = true
		case <-ticker.C:
		}
		now := time.Now()
		current := s.config.stamp()
		overdue := now.Sub(decided) >= decideEvery
		if asked || current != loaded && current == previous || again && overdue {
			loaded = current
			again = s.reload(now)
			decided = now
		} else if overdue {
			s.sessions.decideAgain(s.ruling.Load(), now)
			decided = now
		}
		previous = current
		s.countDrops(now)
		s.refusals.flush(now, s.writeRefusal)
	}
}

// reload takes what is new and good, and keeps the old of the rest: a host certificate that has run out must not hold up a policy
// that takes somebody's key away, and the other way round. It says whether a good policy has to be tried again.
func (s *Server) reload(now time.Time) (again bool) {
	old := s.ruling.Load()
	next, err := s.next(old, now)
	if next.bundle.Version != old.bundle.Version {
		// Remembered before it is in force: what a restart could go back from is not taken.
		if rememberErr := rememberVersion(s.config, next.bundle.Version); rememberErr != nil {
			again = true
			err = errors.Join(err, fmt.Errorf("remembering policy version %d: %w", next.bundle.Version, rememberErr))
			var ruleErr error
			if next, ruleErr = rule(old.bundle, next.keys); ruleErr != nil {
				next, err = old, errors.Join(err, ruleErr)
			}
		}
	}
	if swapErr := s.listener.swap(next.filter); swapErr != nil {
		// Admission after accept still goes by the new list; what the old filter lets through is turned away there.
		err = errors.Join(err, swapErr, s.listener.swap(old.filter))
	}
	s.ruling.Store(next)
	record := next.record("in_force")
	record.Cut = s.sessions.decideAgain(next, now)
	if err != nil {
		record.Outcome, record.Detail = "kept_old", escape(err.Error(), maxDetail)
		s.log.Error("not all of the new policy and host certificate is in force", "version", next.bundle.Version, "error", err, "hint", hint.Of(err))
	} else {
		s.log.Info("policy in force", "version", next.bundle.Version, "expires", next.bundle.Expires, "cut", record.Cut)
	}
	s.append(eventPolicy, record)
	return again
}

// next is the ruling of the files as they are now; what cannot be loaded is as in the old one, and the error says why.
func (s *Server) next(old *ruling, now time.Time) (*ruling, error) {
	b, err := loadBundle(s.config, old.bundle.Version, now)
	if err != nil {
		b = old.bundle
	}
	keys, keysErr := loadHostKeys(s.config.HostKey, s.config.HostCertificate, now)
	if keysErr != nil {
		keys, err = old.keys, errors.Join(err, keysErr)
	}
	next, ruleErr := rule(b, keys)
	if ruleErr != nil {
		return old, errors.Join(err, ruleErr)
	}
	return next, err
}

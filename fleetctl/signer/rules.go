package signer

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"mayfly/internal/durable"
	"mayfly/policies/bundle"
	"mayfly/policies/trust"
	"mayfly/policies/trust/chain"
	"mayfly/rebuild/join"
)

// rules are the signed policy bundle in force, read again when its files change. The version that was seen last is kept
// durably: an older bundle is refused for ever.
type rules struct {
	dir string

	mu      sync.Mutex // guards the rest
	trust   *trust.Trust
	trusted []byte // the bytes of trust
	data    []byte
	sigs    []byte
	current *bundle.Bundle
	version uint64
}

func loadRules(dir string) (*rules, error) {
	r := &rules{dir: dir}
	if err := r.begin(); err != nil {
		return nil, err
	}
	seen, err := os.ReadFile(filepath.Join(dir, keyDir, versionFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("loading the last bundle's version: %w", err)
	default:
		if r.version, err = strconv.ParseUint(strings.TrimSpace(string(seen)), 10, 64); err != nil {
			return nil, fmt.Errorf("loading the last bundle's version: %w", err)
		}
	}
	return r, nil
}

// trustFile is the signer's own copy of the trust policy that was in force last. Whoever changes the one beside it leads nobody back.
const trustFile = "trust.json"

// begin goes from the trust policy that was in force last to the one that is there now; the first is believed as it lies there.
func (r *rules) begin() error {
	own := filepath.Join(r.dir, keyDir, trustFile)
	data, err := durable.ReadRegular(own, trust.MaxSize)
	first := errors.Is(err, fs.ErrNotExist)
	if first {
		data, err = durable.ReadRegular(filepath.Join(r.dir, "trust.json"), trust.MaxSize)
	}
	if err != nil {
		return fmt.Errorf("loading the trust policy: %w", err)
	}
	if r.trust, err = trust.Parse(data); err != nil {
		return fmt.Errorf("loading the trust policy: %w", err)
	}
	r.trusted = data
	if first {
		return durable.WriteFile(own, data, 0o600)
	}
	return r.follow()
}

// follow takes over a trust policy that was put in force, if it follows the present one by signatures. The caller holds mu.
func (r *rules) follow() error {
	data, err := durable.ReadRegular(filepath.Join(r.dir, "trust.json"), trust.MaxSize)
	if err != nil {
		return fmt.Errorf("loading the trust policy: %w", err)
	}
	if bytes.Equal(data, r.trusted) {
		return nil
	}
	newest, _, err := chain.Reach(r.trust, data, filepath.Join(r.dir, "public", "trust"))
	if err != nil {
		return fmt.Errorf("following the trust policy: %w", err)
	}
	if err := durable.WriteFile(filepath.Join(r.dir, keyDir, trustFile), data, 0o600); err != nil {
		return err
	}
	r.trust, r.trusted, r.current = newest, data, nil
	return nil
}

// trusts is the trust policy in force.
func (r *rules) trusts() *trust.Trust {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.trust
}

// bundle returns the bundle in force at now, or a *join.Refusal.
func (r *rules) bundle(now time.Time) (*bundle.Bundle, error) {
	data, err := durable.ReadRegular(filepath.Join(r.dir, "bundle.json"), bundle.MaxSize)
	if err != nil {
		return nil, join.Refuse(join.BundleMissing, "%v", err)
	}
	sigs, err := durable.ReadRegular(filepath.Join(r.dir, "bundle.json.sig"), trust.MaxSignatureBytes)
	if err != nil {
		return nil, join.Refuse(join.BundleMissing, "%v", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.follow(); err != nil {
		return nil, join.Refuse(join.BundleMissing, "%v", err)
	}
	if r.current != nil && bytes.Equal(data, r.data) && bytes.Equal(sigs, r.sigs) && now.Before(r.current.Expires) {
		return r.current, nil
	}
	b, err := bundle.Open(r.trust, data, sigs, now, r.version)
	if err != nil {
		return nil, join.Refuse(join.BundleMissing, "%v", err)
	}
	if b.Version > r.version {
		path := filepath.Join(r.dir, keyDir, versionFile)
		if err := durable.WriteFile(path, []byte(strconv.FormatUint(b.Version, 10)+"\n"), 0o600); err != nil {
			return nil, err
		}
	}
	r.data, r.sigs, r.current, r.version = data, sigs, b, b.Version
	return b, nil
}

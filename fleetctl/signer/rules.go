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
	"mayfly/rebuild/join"
)

// rules are the signed policy bundle in force, read again when its files change. The version that was seen last is kept
// durably: an older bundle is refused for ever.
type rules struct {
	dir   string
	trust *trust.Trust

	mu      sync.Mutex // guards the rest
	data    []byte
	sigs    []byte
	current *bundle.Bundle
	version uint64
}

func loadRules(dir string) (*rules, error) {
	data, err := readBounded(filepath.Join(dir, "trust.json"), trust.MaxSize)
	if err != nil {
		return nil, fmt.Errorf("loading the trust policy: %w", err)
	}
	t, err := trust.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("loading the trust policy: %w", err)
	}
	r := &rules{dir: dir, trust: t}
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

// bundle returns the bundle in force at now, or a *join.Refusal.
func (r *rules) bundle(now time.Time) (*bundle.Bundle, error) {
	data, err := readBounded(filepath.Join(r.dir, "bundle.json"), bundle.MaxSize)
	if err != nil {
		return nil, join.Refuse(join.BundleMissing, "%v", err)
	}
	sigs, err := readBounded(filepath.Join(r.dir, "bundle.json.sig"), trust.MaxSignatureBytes)
	if err != nil {
		return nil, join.Refuse(join.BundleMissing, "%v", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
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

// readBounded reads a regular file of at most limit bytes.
func readBounded(path string, limit int) (data []byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return join.ReadBody(f, limit)
}

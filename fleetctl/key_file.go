package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/inventory"
	"mayfly/policies"
)

// rewritten is what came of a change of policy.toml.
type rewritten struct {
	fleet   inventory.Fleet
	policy  policies.Policy // as it is now, verified
	before  uint64          // its version until then
	inForce uint64          // version of the signed bundle; 0: there is none
}

// rewrite changes policy.toml. The version rises with the first change after a bundle was signed, and stays with those that follow: each
// version is signed once. accept decides on the policy as it would be, and nothing is written if it refuses; just before it is, once is
// called, and after a failure its undo. Whoever else changes the file by a verb waits.
func (d state) rewrite(now time.Time, change func(name string, data []byte) ([]byte, error), accept func(policies.Policy) error, once func() (undo func() error, err error)) (r rewritten, err error) {
	path, err := filepath.EvalSymlinks(d.policyFile())
	if errors.Is(err, fs.ErrNotExist) {
		return r, hint.New(fmt.Errorf("reading policy.toml: %w", err), "write the fleet's policy.toml first; --dir names the state directory")
	}
	if err != nil {
		return r, err
	}
	unlock, err := lockDirectory(string(d))
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if r.fleet, err = d.fleet(); err != nil {
		return r, err
	}
	data, err := read(path, "")
	if err != nil {
		return r, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return r, err
	}
	old, err := policies.Decode(d.policyFile(), data)
	if err != nil {
		return r, err
	}
	if data, err = change(d.policyFile(), data); err != nil {
		return r, err
	}
	r.before = old.Version
	if r.inForce, err = d.signedVersion(); err != nil {
		return r, err
	}
	if old.Version <= r.inForce {
		if data, err = policies.SetVersion(d.policyFile(), data, r.inForce+1); err != nil {
			return r, err
		}
	}
	p, err := policies.Parse(d.policyFile(), data, r.fleet)
	if err != nil {
		return r, fmt.Errorf("with that change: %w", err)
	}
	r.policy = p.Verified(r.fleet, now)
	if err := accept(r.policy); err != nil {
		return r, err
	}
	undo, err := once()
	if err != nil {
		return r, err
	}
	if err := durable.WriteFile(path, data, info.Mode().Perm()); err != nil {
		err = fmt.Errorf("writing %s: %w", path, err)
		if now, failed := read(path, ""); failed == nil && bytes.Equal(now, data) { // it is there, if perhaps not after a power cut
			return r, err
		}
		return r, errors.Join(err, undo())
	}
	return r, nil
}

// signedVersion is the version of the bundle in force, 0 without one or before the fleet has a trust policy.
func (d state) signedVersion() (uint64, error) {
	t, _, err := d.trust()
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return d.inForce(t)
}

// versionText says what became of the version.
func (r rewritten) versionText() string {
	if r.policy.Version == r.before {
		return fmt.Sprint(r.before)
	}
	return fmt.Sprintf("%d, raised from %d: version %d is signed already", r.policy.Version, r.before, r.inForce)
}

// once that does nothing.
func nothing() (func() error, error) { return func() error { return nil }, nil }

// hasKeys reports whether somebody of that name can have keys in a policy.
func hasKeys(p policies.Policy, name string) bool {
	return slices.ContainsFunc(p.Engineers, func(e policies.Engineer) bool { return e.Name == name }) ||
		slices.ContainsFunc(p.BreakGlass, func(b policies.BreakGlass) bool { return b.Name == name })
}

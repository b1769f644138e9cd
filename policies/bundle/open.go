package bundle

import (
	"errors"
	"fmt"
	"time"

	"mayfly/internal/canonical"
	"mayfly/inventory"
	"mayfly/policies"
	"mayfly/policies/trust"
)

// Kind of bundle.json.
const Kind = "mayfly-policy/1"

// MaxSize bounds bundle.json, in bytes: some six hundred keys with their evidence, of 3 KiB each, beside everything else.
const MaxSize = 2 << 20

// Reason codes of a Refusal.
const (
	Unsigned   = "bundle_unsigned"
	Expired    = "bundle_expired"
	Older      = "bundle_older"
	OtherFleet = "bundle_other_fleet"
	TestFleet  = "bundle_test_differs"
	Malformed  = "bundle_malformed"
)

// Refusal is why a bundle does not take effect.
type Refusal struct {
	Reason string // one of the codes above
	Err    error
}

func (r *Refusal) Error() string { return r.Reason + ": " + r.Err.Error() }
func (r *Refusal) Unwrap() error { return r.Err }

// Refused makes a program exit with "refused by policy".
func (r *Refusal) Refused() bool { return true }

func refuse(reason, format string, args ...any) error {
	return &Refusal{Reason: reason, Err: fmt.Errorf(format, args...)}
}

// Make puts fleet and policy into a bundle, ready to be signed. The bundle's version and expiry are the policy's.
func Make(fleet inventory.Fleet, policy policies.Policy, now time.Time) ([]byte, error) {
	policy.Expires = policy.Expires.UTC()
	b := Bundle{
		Kind: Kind, Fleet: fleet.Name, Version: policy.Version,
		Made: now.UTC().Truncate(time.Second), Expires: policy.Expires,
		Policy: policy, Inventory: fleet,
	}
	if err := b.check(); err != nil {
		return nil, fmt.Errorf("making policy bundle: %w", err)
	}
	if !now.Before(b.Expires) {
		return nil, refuse(Expired, "the policy expired at %s", b.Expires.Format(time.RFC3339))
	}
	data, err := canonical.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("making policy bundle: %w", err)
	}
	if len(data) > MaxSize {
		return nil, fmt.Errorf("making policy bundle: longer than %d bytes", MaxSize)
	}
	return data, nil
}

// Open returns the bundle in data if enough people signed these exact bytes, it is this fleet's, no older than minVersion, not
// expired, and its policy holds in its inventory; the evidence of its keys is verified then. Nothing is parsed before the signatures are checked. Its error is a *Refusal.
func Open(t *trust.Trust, data, sigs []byte, now time.Time, minVersion uint64) (*Bundle, error) {
	if len(data) > MaxSize {
		return nil, refuse(Malformed, "longer than %d bytes", MaxSize)
	}
	if _, err := t.Approved(Namespace, data, sigs); err != nil {
		return nil, &Refusal{Reason: Unsigned, Err: err}
	}
	b, err := Parse(data)
	if err != nil {
		return nil, &Refusal{Reason: Malformed, Err: err}
	}
	if b.Fleet != t.Fleet {
		return nil, refuse(OtherFleet, "the bundle is for fleet %q, the trust policy for %q", b.Fleet, t.Fleet)
	}
	if b.Inventory.Test != t.Test {
		return nil, refuse(TestFleet, "the inventory says test = %t, the trust policy %t: they are of different fleets", b.Inventory.Test, t.Test)
	}
	if b.Version < minVersion {
		return nil, refuse(Older, "version %d is older than %d", b.Version, minVersion)
	}
	if !now.Before(b.Expires) {
		return nil, refuse(Expired, "expired at %s", b.Expires.Format(time.RFC3339))
	}
	if !now.IsZero() { // without a time, as for a witness, who decides nothing by it, the evidence of keys proves nothing
		b.Policy = b.Policy.Verified(b.Inventory, now)
	}
	return b, nil
}

// Parse reads a bundle strictly. It says nothing about signatures: use Open before believing one.
func Parse(data []byte) (*Bundle, error) {
	b := new(Bundle)
	if err := canonical.Parse(data, MaxSize, b); err != nil {
		return nil, err
	}
	if err := b.check(); err != nil {
		return nil, err
	}
	return b, nil
}

func (b *Bundle) check() error {
	switch {
	case b.Kind != Kind:
		return fmt.Errorf("kind is %q, not %q", b.Kind, Kind)
	case b.Fleet != b.Inventory.Name:
		return fmt.Errorf("fleet is %q, its inventory's %q", b.Fleet, b.Inventory.Name)
	case b.Version != b.Policy.Version:
		return fmt.Errorf("version is %d, its policy's %d", b.Version, b.Policy.Version)
	case !b.Expires.Equal(b.Policy.Expires):
		return errors.New("expiry differs from its policy's")
	case b.Made.IsZero():
		return errors.New("it does not say when it was made")
	}
	if err := inventory.Check(b.Inventory); err != nil {
		return fmt.Errorf("inventory: %w", err)
	}
	if err := policies.Check(b.Policy, b.Inventory); err != nil {
		return fmt.Errorf("policy: %w", err)
	}
	return nil
}

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"mayfly/internal/canonical"
	"mayfly/internal/command"
	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/policies/bundle"
	"mayfly/policies/trust"
)

var policyBundleVerb = command.Verb{
	Name:    "policy bundle",
	Args:    "--dir DIR [--keep-rejected]",
	Summary: "make the bundle that people sign from fleet.toml and policy.toml",
	Help: `Checks both files like ` + "`fleetctl policy check`" + `, and writes them as one file, DIR/bundle.json, whose version is
the policy's. It takes effect once enough people have signed it. A version that is not higher than that of a bundle in
force is refused: raise version in policy.toml. So is one with enrolled keys whose evidence is rejected, unless --keep-rejected says
that their owners are to be kept out, as when the rules of [hardware] have become stricter.

Where a signed bundle is in force already, the new one waits in DIR/bundle-next.json until enough people have signed it, and
then takes its place; the old one stays in force until then.

Example:

  fleetctl policy bundle --dir lab && fleetctl policy sign --dir lab --key ana && fleetctl policy sign --dir lab --key bo`,
	Run: runPolicyBundle,
}

func runPolicyBundle(ctx context.Context, c *command.Call) error {
	flags := c.Flags()
	dir := dirFlag(flags)
	keep := flags.Bool("keep-rejected", false, "make a bundle of a policy with keys whose evidence is rejected: they let nobody in")
	if err := c.Parse(flags); err != nil {
		return err
	}
	if err := noArguments(flags); err != nil {
		return err
	}
	d, now := state(*dir), time.Now()
	f, p, err := d.checked(now)
	if err != nil {
		return err
	}
	noteOperators(c, f, p)
	noteKeyless(c, p)
	if err := noRejected(c, p); err != nil && !*keep {
		return err
	}
	t, _, err := d.trust()
	if err != nil {
		return err
	}
	if t.Fleet != f.Name {
		return hint.New(fmt.Errorf("fleet.toml is of fleet %s, the trust policy of %s", f.Name, t.Fleet), "--dir names the fleet's own directory")
	}
	if t.Test != f.Test {
		return command.Refuse(differentTest(f.Test, t.Test))
	}
	path := d.bundleFile()
	inForce, err := d.inForce(t)
	if err != nil {
		return err
	}
	if inForce > 0 {
		path = d.nextFile()
	}
	if p.Version <= inForce {
		return command.Refuse(hint.New(fmt.Errorf("policy version %d is not higher than %d, which is signed", p.Version, inForce),
			"raise version in %s", d.policyFile()))
	}
	data, err := bundle.Make(f, p, now)
	if err != nil {
		return err
	}
	noteOutside(c, p)
	unlock, err := lockDirectory(string(d))
	if err != nil {
		return err
	}
	waiting, signed, err := d.waiting(t, path)
	if err == nil && waiting != nil && len(signed) > 0 {
		if same, makeErr := bundle.Make(f, p, waiting.Made); makeErr == nil && bytes.Equal(same, waiting.data) {
			fmt.Fprintf(c.Stdout, "%s: version %d, until %s\n", path, p.Version, p.Expires.Format(time.RFC3339))
			fmt.Fprintf(c.Stderr, "fleetctl: it is as it was, and keeps the signature of %s; next: `fleetctl policy sign` by %d more people\n",
				strings.Join(signed, ", "), max(t.Threshold-len(signed), 0))
			return unlock()
		}
		fmt.Fprintf(c.Stderr, "fleetctl: note: the files have changed: the signature of %s over version %d counts no more, and has to be made again\n",
			strings.Join(signed, ", "), waiting.Version)
	}
	if err != nil {
		return errors.Join(err, unlock())
	}
	err = remove(signatures(path))
	if err == nil {
		err = durable.WriteFile(path, data, 0o644)
	}
	if err := errors.Join(err, unlock()); err != nil {
		return err
	}
	fmt.Fprintf(c.Stdout, "%s: version %d, until %s\n", path, p.Version, p.Expires.Format(time.RFC3339))
	fmt.Fprintf(c.Stderr, "fleetctl: next: `fleetctl policy sign` by %d people\n", t.Threshold)
	return nil
}

// waitingBundle is a bundle that not enough people have signed.
type waitingBundle struct {
	bundle.Bundle
	data []byte
}

// waiting reads the bundle that is about to be replaced, if there is one that can be read, and who has signed it.
func (d state) waiting(t *trust.Trust, path string) (*waitingBundle, []string, error) {
	data, err := readBounded(path, "", bundle.MaxSize)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	sigs, err := readSignatures(path)
	if err != nil {
		return nil, nil, err
	}
	w := waitingBundle{data: data}
	if err := canonical.Parse(data, bundle.MaxSize, &w.Bundle); err != nil {
		return nil, nil, nil // it is replaced, whatever it was
	}
	people, err := t.Approved(bundle.Namespace, data, sigs)
	if few := (*trust.NotApproved)(nil); errors.As(err, &few) {
		people = few.Have
	}
	return &w, people, nil
}

// differentTest says that inventory and trust policy are not of one kind of fleet: such a bundle would open nowhere.
func differentTest(inventory, trust bool) error {
	return hint.New(fmt.Errorf("the inventory says test = %t, the trust policy %t", inventory, trust),
		"a fleet is a test fleet from its `fleetctl init` to its end: set test = %t in fleet.toml, or begin another fleet", trust)
}

// inForce is the version of the signed bundle, expired or not; 0 when enough people have not signed one yet.
func (d state) inForce(t *trust.Trust) (uint64, error) {
	data, sigs, err := d.bundleBytes()
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if _, err := t.Approved(bundle.Namespace, data, sigs); err != nil {
		return 0, nil
	}
	var b bundle.Bundle
	if err := canonical.Parse(data, bundle.MaxSize, &b); err != nil {
		return 0, fmt.Errorf("%s: signed, and yet: %w", d.bundleFile(), err)
	}
	return b.Version, nil
}

// install puts the next bundle in the place of the one in force. Signatures over other bytes count for nothing and harm nothing,
// so the signatures of both are there before the bundle changes: at every moment what is there is signed.
// Whoever signed at the same moment may have put it there already.
func (d state) install(t *trust.Trust) (err error) {
	unlock, err := lockDirectory(string(d))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	data, err := read(d.nextFile(), "")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	next, err := readBounded(signatures(d.nextFile()), "`fleetctl policy sign` makes it", trust.MaxSignatureBytes)
	if err != nil {
		return err
	}
	if _, err := t.Approved(bundle.Namespace, data, next); err != nil {
		return fmt.Errorf("%s has changed while it was being signed: %w", d.nextFile(), err)
	}
	old, err := readSignatures(d.bundleFile())
	if err != nil {
		return err
	}
	if len(next)+len(old) > trust.MaxSignatureBytes {
		old = nil // junk: nobody has so many keys
	}
	if err := durable.WriteFile(signatures(d.bundleFile()), append(next, old...), 0o644); err != nil {
		return err
	}
	if err := durable.WriteFile(d.bundleFile(), data, 0o644); err != nil {
		return err
	}
	if err := durable.WriteFile(signatures(d.bundleFile()), next, 0o644); err != nil {
		return err
	}
	return errors.Join(remove(d.nextFile()), remove(signatures(d.nextFile())))
}

// remove removes a file that may be missing.
func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing what is replaced: %w", err)
	}
	return nil
}

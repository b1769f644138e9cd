package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"mayfly/internal/command"
	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/policies/bundle"
	"mayfly/policies/trust"
	"mayfly/policies/trust/chain"
	"mayfly/rebuild/release"
)

var trustApplyVerb = command.Verb{
	Name:    "trust apply",
	Args:    "--dir DIR",
	Summary: "put the next trust policy in force, once enough people have signed it",
	Help: `Puts DIR/trust-next.json in force if enough people have signed it: the old threshold of the old approvers, or else the old recovery
quorum, and in both cases the new threshold of the new approvers. It is kept in DIR/public/trust as the step that everybody follows, and
DIR/records gets a record for paper. There is no way back but another step.

From then on a policy or release counts only with signatures of the new approvers; what is short of them is named. Copy
DIR/public/trust to bastions that stand alone, beside their trust.json; servers get the new trust policy with their next life.

Example:

  fleetctl trust apply --dir lab`,
	Run: runTrustApply,
}

func runTrustApply(ctx context.Context, c *command.Call) error {
	flags := c.Flags()
	dir := dirFlag(flags)
	if err := c.Parse(flags); err != nil {
		return err
	}
	if err := noArguments(flags); err != nil {
		return err
	}
	d := state(*dir)
	unlock, err := lockDirectory(string(d))
	if err != nil {
		return err
	}
	return errors.Join(d.applyTrust(c, time.Now()), unlock())
}

// applyTrust finishes what was begun, or takes the step that waits. The caller holds the directory.
func (d state) applyTrust(c *command.Call, now time.Time) error {
	old, oldData, err := d.trustAsItIs()
	if err != nil {
		return err
	}
	_, steps, err := chain.Follow(old, d.chainDir())
	if err != nil {
		return command.Refuse(hint.New(err, "`fleetctl trust apply` did not put it there: see what it is and who did, and take it away; what is in force is not touched"))
	}
	if len(steps) > 0 { // it stopped after the step was published
		for _, s := range steps {
			if err := d.takeStep(c, old, &s, now); err != nil {
				return err
			}
			old = s.Trust
		}
		return d.forgetNext(old)
	}
	if waiting, err := readBounded(d.nextTrustFile(), proposeHint, trust.MaxSize); err == nil && bytes.Equal(waiting, oldData) { // it stopped just before its end
		fmt.Fprintf(c.Stdout, "trust policy %d is in force\n", old.Version)
		return d.forgetNext(old)
	}
	n, err := d.nextTrust()
	if err != nil {
		return err
	}
	step, err := trust.Advance(n.old, n.data, n.sigs)
	if err != nil {
		return hint.New(fmt.Errorf("%s: %w", d.nextTrustFile(), err), "signed so far: %s; `fleetctl trust sign` adds a signature", strings.Join(n.standing(), "; "))
	}
	if _, err := os.Lstat(chain.File(d.chainDir(), old.Version)); errors.Is(err, fs.ErrNotExist) {
		if err := chain.Write(d.chainDir(), old.Version, oldData, nil); err != nil {
			return err
		}
	}
	if err := chain.Write(d.chainDir(), step.Trust.Version, n.data, n.sigs); err != nil {
		return err
	}
	if err := d.takeStep(c, n.old, step, now); err != nil {
		return err
	}
	return d.forgetNext(step.Trust)
}

// takeStep makes a published step the trust policy in force, and tells it loudly.
func (d state) takeStep(c *command.Call, old *trust.Trust, step *trust.Change, now time.Time) error {
	data, err := step.Trust.Marshal()
	if err != nil {
		return err
	}
	how := fmt.Sprintf("approvers %s, and the new approvers %s", strings.Join(step.Old, ", "), strings.Join(step.New, ", "))
	if step.How == trust.ByRecovery {
		how = fmt.Sprintf("RECOVERY %s, and the new approvers %s", strings.Join(step.Old, ", "), strings.Join(step.New, ", "))
	}
	record, err := d.writeRecord(step.Trust, data, how, now)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(d.trustFile(), data, 0o644); err != nil {
		return err
	}
	fmt.Fprintf(c.Stdout, "trust policy %d is in force, by %s\n", step.Trust.Version, how)
	for _, line := range changes(old, step.Trust) {
		fmt.Fprintf(c.Stdout, "  %s\n", line)
	}
	fmt.Fprintf(c.Stdout, "record for paper: %s\n", record)
	if step.How == trust.ByRecovery {
		fmt.Fprintf(c.Stderr, "fleetctl: warning: RECOVERY: the approvers of fleet %s were replaced with keys from safes: tell everybody, and find out why\n", old.Fleet)
	}
	fmt.Fprintln(c.Stderr, "fleetctl: next: print the record, have everybody sign it; copy public/trust to bastions that stand alone")
	return d.short(c, step.Trust)
}

// forgetNext removes what waited, unless it is a proposal that follows what is in force now.
func (d state) forgetNext(now *trust.Trust) error {
	data, err := readBounded(d.nextTrustFile(), "", trust.MaxSize)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if next, err := trust.Parse(data); err == nil && trust.Follows(now, next, trust.ByApprovers) == nil {
		return nil
	}
	return errors.Join(remove(d.nextTrustFile()), remove(signatures(d.nextTrustFile())))
}

// short names what too few of the present approvers have signed: it counts no more.
func (d state) short(c *command.Call, t *trust.Trust) error {
	files := []struct{ path, namespace, verb string }{{d.bundleFile(), bundle.Namespace, "policy sign"}, {d.nextFile(), bundle.Namespace, "policy sign"}}
	version, err := d.current()
	if err != nil {
		return err
	}
	if version > 0 {
		name := strconv.FormatUint(version, 10)
		files = append(files, struct{ path, namespace, verb string }{filepath.Join(d.releases(), name, release.StatementFile), release.Namespace, "image sign --release " + name})
	}
	for _, f := range files {
		data, err := read(f.path, "")
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		sigs, err := readSignatures(f.path)
		if err != nil {
			return err
		}
		if _, err := t.Approved(f.namespace, data, sigs); err != nil {
			people := have(nil, err)
			fmt.Fprintf(c.Stderr, "fleetctl: warning: %s is signed by %d of %d present approvers (%s) and counts no more: `fleetctl %s` by %d more\n",
				f.path, len(people), t.Threshold, strings.Join(people, ", "), f.verb, t.Threshold-len(people))
		}
		if n := notBuilt(t, data, sigs); f.namespace == release.Namespace && n > 0 {
			fmt.Fprintf(c.Stderr, "fleetctl: warning: %s is signed by too few of the present builders and counts no more: `fleetctl image rebuild --release %s` by %d more\n", f.path, filepath.Base(filepath.Dir(f.path)), n)
		}
	}
	return nil
}

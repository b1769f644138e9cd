package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"mayfly/internal/command"
	"mayfly/internal/hint"
	"mayfly/policies"
	"mayfly/rebuild/history"
)

// historyRule is what a history has to keep under the policy in force.
func (d state) historyRule(ctx context.Context, now time.Time) (history.Rule, error) {
	t, _, err := d.trust()
	if err != nil {
		return history.Rule{}, err
	}
	seen, err := d.policySeen(ctx)
	if err != nil {
		return history.Rule{}, err
	}
	b, err := d.bundle(t, seen, now) // an older one may ask less, or believe who has left
	if err != nil {
		return history.Rule{}, err
	}
	return ruleOf(b.Fleet, b.Policy), nil
}

func ruleOf(fleet string, p policies.Policy) history.Rule {
	return history.Rule{Fleet: fleet, People: p.SignersOfChanges(), From: p.History.From, Deep: p.History.Deep}
}

// checkHistory checks a repository, and says on a terminal how far it is.
func checkHistory(ctx context.Context, c *command.Call, dir string, rule history.Rule, revision string) (history.Report, error) {
	r, err := history.Open(ctx, dir)
	if err != nil {
		return history.Report{}, err
	}
	const step = 500 // commits
	return r.Verify(ctx, rule, revision, func(done, all int) {
		if done%step == 0 {
			fmt.Fprintf(c.Stderr, "fleetctl: %d of %d commits\n", done, all)
		}
	})
}

func historyHint(refused *history.Refusal, all int) error {
	err := command.Refuse(refused)
	if all > 1 {
		err = command.Refuse(fmt.Errorf("%d commits do not pass; the first: %w", all, refused))
	}
	switch refused.Reason {
	case history.Unsigned, history.BadSignature, history.SignerUnknown:
		return hint.New(err, "sign commits with an enrolled key: git config gpg.format ssh, user.signingkey KEY.pub, commit.gpgSign true")
	case history.NotApproved, history.DeepNotApproved:
		return hint.New(err, "another engineer reviews it and runs `fleetctl approve-change COMMIT`; docs/formats/history.md says how to fetch what others approved")
	case history.Shallow:
		return hint.New(err, "git fetch --unshallow")
	case history.Damaged:
		return hint.New(err, "git fsck says more; clone it again from elsewhere")
	case history.NotAFile:
		return hint.New(err, "commit files in place of it; no later commit mends the one that had it, so history.from has to come after")
	case history.NoAncestor:
		return hint.New(err, "history.from of the policy names a commit of another branch, or the branch was rewritten")
	}
	return err
}

// mayGoUnchecked refuses to build where no policy says what the history has to keep, but in a test fleet that never had one: else whoever removes a file
// removes the check.
func (d state) mayGoUnchecked(ctx context.Context, c *command.Call) error {
	t, _, err := d.trust()
	if err != nil {
		return err
	}
	seen, err := d.policySeen(ctx)
	if err != nil {
		return err
	}
	switch {
	case seen > 0:
		return command.Refuse(hint.New(fmt.Errorf("%s is not there, and policy %d was in force: nothing says what the history of the source has to keep", d.bundleFile(), seen), "put the bundle and its signatures back"))
	case !t.Test:
		return command.Refuse(hint.New(fmt.Errorf("%s is not there: nothing says what the history of the source has to keep", d.bundleFile()),
			"`fleetctl policy bundle` makes the policy, and `fleetctl policy sign` puts it in force, before the first image; without [history] it asks for nothing"))
	}
	fmt.Fprintln(c.Stderr, "fleetctl: warning: no policy is in force: the history of the source was not checked")
	return nil
}

// passHistory returns the directory to build from. Where the policy in force has [history] that is a copy, below work, of the commit at the source's
// HEAD, whose history has passed; where it has none, the source as it is, with a warning.
func (d state) passHistory(ctx context.Context, c *command.Call, source, work string) (string, error) {
	if _, err := os.Lstat(d.bundleFile()); errors.Is(err, os.ErrNotExist) {
		return source, d.mayGoUnchecked(ctx, c)
	}
	rule, err := d.historyRule(ctx, time.Now())
	if err != nil {
		return "", err
	}
	if rule.From == "" {
		fmt.Fprintln(c.Stderr, "fleetctl: warning: the policy has no [history]: the history of the source was not checked")
		return source, nil
	}
	report, err := checkHistory(ctx, c, source, rule, "HEAD")
	var refused *history.Refusal
	if errors.As(err, &refused) {
		return "", historyHint(refused, report.Refused)
	}
	if err != nil {
		return "", err
	}
	r, err := history.Open(ctx, source)
	if err != nil {
		return "", err
	}
	copied := filepath.Join(work, "source")
	if err := os.Mkdir(copied, 0o700); err != nil {
		return "", fmt.Errorf("exporting the source: %w", err)
	}
	if err := r.Export(ctx, report.To, copied); errors.As(err, &refused) {
		return "", historyHint(refused, 1)
	} else if err != nil {
		return "", err
	}
	fmt.Fprintf(c.Stderr, "fleetctl: building commit %s; %d commits since %s are signed and approved\n", report.To[:12], len(report.Commits), report.From[:12])
	return copied, nil
}

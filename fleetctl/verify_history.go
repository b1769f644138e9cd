package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"mayfly/internal/command"
	"mayfly/internal/hint"
	"mayfly/policies"
	"mayfly/rebuild/history"
)

var verifyHistoryVerb = command.Verb{
	Name:    "verify-history",
	Args:    "--dir DIR [--repo DIR] [--from COMMIT] [REVISION]",
	Summary: "check that every commit is signed, and every change approved by another person",
	Help: `Checks the git repository at --repo, from a commit on (history.from of the policy in force, or --from) to REVISION (HEAD): every commit
is signed by an engineer's enrolled key (git: gpg.format = ssh, commit.gpgSign = true), and approved by the signature of another engineer
(fleetctl approve-change), by two others where it touches one of history.deep's paths. A merge is a commit as any other.

It reads the repository alone: git fetch origin refs/notes/mayfly-approvals:refs/notes/mayfly-approvals brings the approvals.
It exits with 3 if a commit does not pass, and names all that do not.

Example:

  fleetctl verify-history --dir lab --repo ../mayfly`,
	Run: runVerifyHistory,
}

func repositoryFlag(fs *flag.FlagSet) *string {
	return fs.String("repo", ".", "`directory` of the git repository")
}

func runVerifyHistory(ctx context.Context, c *command.Call) error {
	fs := c.Flags()
	dir := dirFlag(fs)
	repo := repositoryFlag(fs)
	from := fs.String("from", "", "`commit` that is believed, in place of history.from of the policy")
	output := outputFlag(fs)
	if err := c.Parse(fs); err != nil {
		return err
	}
	if err := checkFormat(*output); err != nil {
		return err
	}
	if fs.NArg() > 1 {
		return command.Usagef("%q is one word too many", fs.Arg(1))
	}
	revision := "HEAD"
	if fs.NArg() == 1 {
		revision = fs.Arg(0)
	}
	rule, err := state(*dir).historyRule(time.Now())
	if err != nil {
		return err
	}
	if *from != "" {
		rule.From = *from
	}
	if rule.From == "" {
		return hint.New(command.Usagef("nothing says from which commit on"), "give --from COMMIT, or put [history] with from = \"COMMIT\" into policy.toml")
	}
	report, err := checkHistory(ctx, c, *repo, rule, revision)
	var refused *history.Refusal
	if err != nil && !errors.As(err, &refused) {
		return err
	}
	if report.To == "" {
		return err // nothing was looked at
	}
	var rows [][]string
	for _, k := range report.Commits {
		verdict := "passes"
		if k.Reason != "" {
			verdict = fmt.Sprintf("%s: %s", k.Reason, k.Text)
		}
		deep := "-"
		if len(k.Deep) > 0 {
			deep = "yes"
		}
		rows = append(rows, []string{k.Commit[:12], dash(k.Signer), dash(strings.Join(k.Approvers, ",")), deep, k.Subject, verdict})
	}
	if report.Commits == nil {
		report.Commits = []history.Checked{}
	}
	if err := show(c.Stdout, *output, report, []string{"COMMIT", "SIGNED BY", "APPROVED BY", "DEEP", "SUBJECT", "VERDICT"}, rows); err != nil {
		return err
	}
	if refused != nil {
		return historyHint(refused, report.Refused)
	}
	fmt.Fprintf(c.Stderr, "fleetctl: %d commits since %s pass\n", len(report.Commits), report.From[:12])
	return nil
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// historyRule is what a history has to keep under the policy in force.
func (d state) historyRule(now time.Time) (history.Rule, error) {
	t, _, err := d.trust()
	if err != nil {
		return history.Rule{}, err
	}
	b, err := d.bundle(t, 0, now)
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
		return hint.New(err, "another engineer reviews it and runs `fleetctl approve-change COMMIT`; `git fetch origin %s:%[1]s` brings what others approved", history.Notes)
	case history.Shallow:
		return hint.New(err, "git fetch --unshallow")
	case history.NoAncestor:
		return hint.New(err, "history.from of the policy names a commit of another branch, or the branch was rewritten")
	}
	return err
}

// passHistory returns the directory to build from. Where the policy in force has [history] that is a copy, below work, of the commit at the source's
// HEAD, whose history has passed; where it has none, the source as it is, with a warning.
func (d state) passHistory(ctx context.Context, c *command.Call, source, work string) (string, error) {
	if _, err := os.Stat(d.bundleFile()); errors.Is(err, os.ErrNotExist) {
		fmt.Fprintln(c.Stderr, "fleetctl: warning: no policy is in force: the history of the source was not checked")
		return source, nil
	}
	rule, err := d.historyRule(time.Now())
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
	if err := r.Export(ctx, report.To, copied); err != nil {
		return "", err
	}
	fmt.Fprintf(c.Stderr, "fleetctl: building commit %s; %d commits since %s are signed and approved\n", report.To[:12], len(report.Commits), report.From[:12])
	return copied, nil
}

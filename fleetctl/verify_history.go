package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strings"
	"time"

	"mayfly/internal/command"
	"mayfly/internal/hint"
	"mayfly/rebuild/history"
)

var verifyHistoryVerb = command.Verb{
	Name:    "verify-history",
	Args:    "--dir DIR [--repo DIR] [--from COMMIT] [REVISION]",
	Summary: "check that every commit is signed, and every change approved by another person",
	Help: `Checks the git repository at --repo, from a commit on (history.from of the policy in force, or --from) to REVISION (HEAD): every commit
is signed by an engineer's enrolled key (git: gpg.format = ssh, commit.gpgSign = true), and approved by the signature of another engineer
(fleetctl approve-change), by two others where it touches one of history.deep's paths. A merge is a commit as any other.

It reads the repository alone; docs/formats/history.md says how to fetch and join what others have approved.
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
	rule, err := state(*dir).historyRule(ctx, time.Now())
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
	if refused != nil && len(report.Commits) == 0 { // nothing was looked at
		return historyHint(refused, 1)
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

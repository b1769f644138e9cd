package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"mayfly/internal/command"
	"mayfly/internal/hint"
	"mayfly/policies/trust"
	"mayfly/rebuild/history"
)

var approveChangeVerb = command.Verb{
	Name:    "approve-change",
	Args:    "--dir DIR --key FILE [--repo DIR] COMMIT...",
	Summary: "approve commits of somebody else, by a signature in a git note",
	Help: `Signs, with an engineer's enrolled key, that a commit was reviewed: the fleet, the commit's id and the SHA-256 of all that its tree holds. The
signature goes into the commit's note under refs/notes/mayfly-approvals; push that ref for others to see it. Each commit is one touch. Your own commit is refused.

FILE is the public key of one that an ssh-agent holds (bastion-agent), or a private key in a test fleet.

Example:

  git show 5f3c9a1
  fleetctl approve-change --dir lab --key ~/.ssh/id_yubikey.pub 5f3c9a1
  git push origin refs/notes/mayfly-approvals`,
	Run: runApproveChange,
}

func runApproveChange(ctx context.Context, c *command.Call) error {
	fs := c.Flags()
	dir := dirFlag(fs)
	repo := repositoryFlag(fs)
	key := fs.String("key", "", "`file` of an engineer's private key, or public key in the agent")
	output := outputFlag(fs)
	if err := c.Parse(fs); err != nil {
		return err
	}
	if err := checkFormat(*output); err != nil {
		return err
	}
	if *key == "" || fs.NArg() == 0 {
		return command.Usagef("--key and a COMMIT are needed")
	}
	rule, err := state(*dir).historyRule(ctx, time.Now())
	if err != nil {
		return err
	}
	signer, err := loadSigner(*key, os.Getenv("SSH_AUTH_SOCK"))
	if err != nil {
		return err
	}
	person, ok := rule.People[trust.FormatKey(signer.PublicKey())]
	if !ok {
		return hint.New(command.Refuse(fmt.Errorf("%s is no engineer's key whose evidence is accepted", *key)), "`fleetctl key list` shows them; `fleetctl key add` enrols one")
	}
	r, err := history.Open(ctx, *repo)
	if err != nil {
		return err
	}
	var changes []history.Change
	for _, revision := range fs.Args() {
		id, err := r.Commit(ctx, revision)
		if err != nil {
			return err
		}
		change, author, err := r.Change(ctx, rule.Fleet, id, rule.People)
		if err != nil {
			return err
		}
		if author == person {
			return hint.New(command.Refuse(fmt.Errorf("commit %s is %s's own", id[:12], person)), "somebody else approves it")
		}
		changes = append(changes, change)
	}
	var rows [][]string
	for _, change := range changes {
		fmt.Fprintf(c.Stderr, "fleetctl: approving %s as %s\n", change.Commit[:12], person)
		if err := r.Approve(ctx, change, signer); err != nil {
			return err
		}
		rows = append(rows, []string{change.Commit, person, change.Content})
	}
	return show(c.Stdout, *output, changes, []string{"COMMIT", "APPROVED BY", "CONTENT SHA-256"}, rows)
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"mayfly/internal/command"
	"mayfly/internal/hint"
	"mayfly/internal/sshsig"
	"mayfly/inventory"
	"mayfly/policies"
	"mayfly/policies/statement"
	"mayfly/policies/trust"
)

var approveVerb = command.Verb{
	Name:    "approve",
	Args:    "--dir DIR --engineer NAME --server NAME --reason TEXT --key FILE",
	Summary: "let another engineer use a grant that asks for approval",
	Help: `Writes an approval for one engineer, signed with your own enrolled hardware key, into the directory of statements: the bastion
takes it within a second. FILE is the public half of a key that ssh-agent holds (touch it when it blinks). Nobody approves for
themselves, not with a second key either. To take it back, remove the file: what it let in is cut within a second.

A SERVER is a name, "region:NAME" or "*", as in a grant. An approval lasts at most 8 hours.

Example:

  fleetctl approve --dir lab --engineer anna --server se-1 --for 1h --reason "disk full" --key ~/.ssh/id_ed25519_sk.pub`,
	Run: runApprove,
}

func runApprove(ctx context.Context, c *command.Call) error {
	fs := c.Flags()
	dir := dirFlag(fs)
	engineer := fs.String("engineer", "", "`name` of who is to go")
	servers := manyFlag(fs, "server", "`name` of a server, \"region:NAME\" or \"*\"; may be repeated")
	ports := portFlags(fs)
	length := fs.Duration("for", time.Hour, "how `long`, at most 8h")
	reason := fs.String("reason", "", "`text` that every record of it shows")
	key := fs.String("key", "", "`file` of your own public key in the agent, or private key")
	out := outFlag(fs)
	if err := c.Parse(fs); err != nil {
		return err
	}
	if err := errors.Join(noArguments(fs), span(*length, statement.MaxApproval)); err != nil {
		return err
	}
	if *engineer == "" || len(*servers) == 0 || *reason == "" || *key == "" {
		return command.Usagef("--engineer, --server, --reason and --key are needed")
	}
	if len(*ports) == 0 {
		*ports = []uint16{inventory.PortSSH}
	}
	d, now := state(*dir), time.Now().UTC().Truncate(time.Second)
	t, b, err := d.decides(ctx, now)
	if err != nil {
		return err
	}
	id, err := statement.NewID()
	if err != nil {
		return err
	}
	a := statement.Approval{Kind: statement.KindApproval, Fleet: b.Fleet, ID: id, Engineer: *engineer, Servers: *servers, Ports: *ports,
		Reason: *reason, Made: now, NotBefore: now, Expires: now.Add(*length)}
	data, err := statement.Marshal(a)
	if err != nil {
		return command.Usagef("%v", err)
	}
	if err := worthwhile(b.Policy, b.Inventory, a); err != nil {
		return command.Refuse(err)
	}
	s, err := loadSigner(*key, os.Getenv("SSH_AUTH_SOCK"))
	if err != nil {
		return err
	}
	by, v := b.Policy.Owner(trust.FormatKey(s.PublicKey()))
	if v.Allow && by == a.Engineer {
		v = policies.Verdict{Reason: policies.ApprovalOwn, Detail: "nobody approves for themselves"}
	}
	if !v.Allow {
		return command.Refuse(hint.New(fmt.Errorf("%s: %s", v.Reason, v.Detail), "another engineer of the policy signs, with an enrolled hardware key"))
	}
	fmt.Fprintf(c.Stderr, "fleetctl: approve: %s, to %s, ports %s, until %s: %s\n", a.Engineer, strings.Join(a.Servers, " "), portList(a.Ports), a.Expires.Format(time.RFC3339), a.Reason)
	sig, err := sshsig.Sign(s, statement.NamespaceApproval, data)
	if err != nil {
		return err
	}
	opened, err := statement.Open(t, data, sig, now)
	if err != nil {
		return fmt.Errorf("checking the approval just made: %w", err)
	}
	if v := b.Policy.DecideApproval(statement.Collect([]statement.Opened{opened}).Approvals[0], now); !v.Allow {
		return command.Refuse(hint.New(fmt.Errorf("%s: %s", v.Reason, v.Detail), "where ssh.verify_required is set, the signature itself must show PIN or biometry: sign with a key made with -O verify-required"))
	}
	path := filepath.Join(d.out(*out), "approval-"+a.ID+".json")
	if err := writeStatement(path, data, sig); err != nil {
		return err
	}
	fmt.Fprintf(c.Stdout, "%s: %s may go until %s, approved by %s\n", path, a.Engineer, a.Expires.Format(time.RFC3339), by)
	return nil
}

// worthwhile refuses an approval that no grant asks for: it would be good for nothing, and somebody would wait in vain.
func worthwhile(p policies.Policy, f inventory.Fleet, a statement.Approval) error {
	if !slices.ContainsFunc(p.Engineers, func(e policies.Engineer) bool { return e.Name == a.Engineer }) {
		return hint.New(fmt.Errorf("%s: no engineer %q", policies.UserUnknown, a.Engineer), "the [[engineer]] tables of policy.toml name them, as they were when the bundle was made")
	}
	for _, pattern := range a.Servers {
		wanted := policies.Grant{Servers: []string{pattern}}
		known := false
		asks := map[uint16]bool{}
		for _, s := range f.Servers {
			if !wanted.Covers(s.Name, f.RegionOf(s.Name)) {
				continue
			}
			known = true
			for _, g := range p.Grants {
				if g.Approval && slices.Contains(g.Engineers, a.Engineer) && g.Covers(s.Name, f.RegionOf(s.Name)) {
					for _, port := range g.Ports {
						asks[port] = true
					}
				}
			}
		}
		if !known {
			return hint.New(fmt.Errorf("%s: no server %q in the signed inventory", policies.TargetUnknown, pattern), "fleet.toml lists them, as it was when the bundle was made")
		}
		for _, port := range a.Ports {
			if !asks[port] {
				return hint.New(fmt.Errorf("no grant of %s to port %d of %s asks for an approval", a.Engineer, port, pattern), "approval = true in the grant makes it ask; docs/formats/policy.md")
			}
		}
	}
	return nil
}

func portList(ports []uint16) string {
	return strings.Trim(fmt.Sprint(ports), "[]")
}

var approvalsVerb = command.Verb{
	Name:    "approvals",
	Args:    "--dir DIR",
	Summary: "list approvals, and which are in force",
	Help: `Reads the directory of statements as the bastion does, under the signed policy in force, and changes nothing.

Example:

  fleetctl approvals --dir lab -o json`,
	Run: runApprovals,
}

// approvalRow is one line of `fleetctl approvals`.
type approvalRow struct {
	statement.Approval
	State string   `json:"state"` // "in_force", or why not
	By    []string `json:"by"`    // engineers whose signatures count
	File  string   `json:"file"`
}

func runApprovals(ctx context.Context, c *command.Call) error {
	l, err := listStatements(ctx, c)
	if err != nil {
		return err
	}
	list := []approvalRow{}
	var rows [][]string
	for _, f := range l.files {
		a, ok := f.opened.Statement.(statement.Approval)
		if !ok {
			continue
		}
		r := approvalRow{Approval: a, State: "in_force", By: []string{}, File: f.path}
		for _, key := range f.opened.Keys {
			if name, v := l.bundle.Policy.Owner(key); v.Allow && name != a.Engineer && !slices.Contains(r.By, name) {
				r.By = append(r.By, name)
			}
		}
		in := statement.Collect([]statement.Opened{f.opened}).Approvals
		if v := l.bundle.Policy.DecideApproval(in[0], l.now); f.err != nil {
			r.State = word(f.err)
		} else if !v.Allow {
			r.State = string(v.Reason)
		} else if l.now.Before(a.NotBefore) {
			r.State = string(policies.ApprovalEarly)
		}
		list = append(list, r)
		rows = append(rows, []string{a.ID, a.Engineer, strings.Join(a.Servers, " "), portList(a.Ports), a.Expires.Format(time.RFC3339), r.State, strings.Join(r.By, " "), a.Reason})
	}
	return show(c.Stdout, l.form, list, []string{"ID", "ENGINEER", "SERVERS", "PORTS", "UNTIL", "STATE", "BY", "REASON"}, rows)
}

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"mayfly/internal/command"
	"mayfly/policies"
)

var keyRevokeVerb = command.Verb{
	Name:    "key revoke",
	Args:    "FINGERPRINT [--dir DIR] [-o json]",
	Summary: "take a key out of policy.toml, for good",
	Help: `Takes the key's table out of DIR/policy.toml and puts its fingerprint into hardware.revoked, so that no policy that enrols it
again loads and no robot gets in by it. Every other byte of the file stays as it is. Where the policy's version is signed already, it rises by
one.

It holds once the new policy is bundled, signed by enough people and in force: then live sessions by that key are cut, and servers take it
out of their authorized keys.

Example:

  fleetctl key revoke SHA256:0Z5N… --dir lab && fleetctl policy bundle --dir lab`,
	Run: func(ctx context.Context, c *command.Call) error {
		flags := c.Flags()
		dir, output := dirFlag(flags), outputFlag(flags)
		if err := c.Parse(flags); err != nil {
			return err
		}
		print, err := oneArgument(flags, "the key's FINGERPRINT")
		if err := errors.Join(err, checkFormat(*output)); err != nil {
			return err
		}
		if !strings.HasPrefix(print, "SHA256:") {
			return command.Usagef("%q is no fingerprint: \"SHA256:…\", as fleetctl key list shows it", print)
		}
		d := state(*dir)
		owner, left, done, err := d.revokeKey(print, time.Now())
		if err != nil {
			return err
		}
		report := revokeReport{Name: owner, Fingerprint: print, Left: left, Version: done.policy.Version, Before: done.before}
		if err := show(c.Stdout, *output, report, []string{"REVOKED", d.policyFile()},
			[][]string{{"name", owner}, {"key", print}, {"keys left", fmt.Sprint(left)}, {"policy version", done.versionText()}}); err != nil {
			return err
		}
		if left == 0 {
			fmt.Fprintf(c.Stderr, "fleetctl: note: %s has no other key, and can do nothing until `fleetctl key add`\n", owner)
		}
		d.noteApprover(c, print)
		fmt.Fprintf(c.Stderr, "fleetctl: next: `fleetctl policy bundle`, and `fleetctl policy sign` by enough people: until then the key opens what it opened\n")
		return nil
	},
}

// revokeReport is what `fleetctl key revoke -o json` prints. Its fields stay.
type revokeReport struct {
	Name        string `json:"name"`
	Fingerprint string `json:"fingerprint"`
	Left        int    `json:"keys_left"`
	Version     uint64 `json:"version"`
	Before      uint64 `json:"version_before"`
}

func (d state) revokeKey(print string, now time.Time) (owner string, left int, done rewritten, err error) {
	done, err = d.rewrite(now, func(name string, data []byte) ([]byte, error) {
		p, err := policies.Decode(name, data)
		if err != nil {
			return nil, err
		}
		public := ""
		for _, k := range keyReports(p) {
			if k.Fingerprint == print {
				owner, public = k.Name, k.Public
			}
		}
		for _, k := range keyReports(p) {
			if k.Name == owner && k.Fingerprint != print {
				left++
			}
		}
		for _, r := range p.Robots {
			if policies.Fingerprint(r.Public) == print {
				return nil, refuseKey(policies.KeyUnknown, "take [[robot]] away, or give it another key", "%s is the key of robot %s, which has no other", print, r.Name)
			}
		}
		if public == "" {
			return nil, refuseKey(policies.KeyUnknown, "fleetctl key list shows the keys", "nobody has key %s", print)
		}
		if data, err = policies.RemoveKey(name, data, public); err != nil {
			return nil, err
		}
		return policies.RevokeFingerprint(name, data, print)
	}, func(policies.Policy) error { return nil }, nothing)
	return owner, left, done, err
}

// noteApprover says where a revoked key still signs: the trust policy is another file.
func (d state) noteApprover(c *command.Call, print string) {
	t, _, err := d.trust()
	if err != nil {
		return
	}
	for _, person := range t.Approvers {
		for _, public := range person.Keys {
			if policies.Fingerprint(public) == print {
				fmt.Fprintf(c.Stderr, "fleetctl: note: the same key is one of approver %s in %s: a new trust policy takes it away there\n", person.Name, d.trustFile())
			}
		}
	}
}

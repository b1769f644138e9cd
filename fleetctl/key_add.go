package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"mayfly/bastion/hardkey"
	"mayfly/internal/command"
	"mayfly/internal/hint"
	"mayfly/policies"
	"mayfly/policies/enrolment"
)

// Reasons of who adds and revokes keys, beside those of package policies and of bastion/hardkey.
const (
	enrolmentMalformed = "enrolment_malformed"
	keyEnrolled        = "key_enrolled"
)

var keyAddVerb = command.Verb{
	Name:    "key add",
	Args:    "REQUEST [--dir DIR] [-o json]",
	Summary: "verify an enrolment request, and put the key into policy.toml",
	Help: `REQUEST is the file that "bastion-agent enroll" wrote. It is accepted if it answers a challenge of "fleetctl key challenge" that
nobody has answered yet, if the key's evidence keeps the policy's [hardware] rules, and if the key is nobody's. What it proves is shown. The
key's table goes to its owner's place in DIR/policy.toml, every other byte of which stays as it is; the challenge is then used up. Where the
policy's version is signed already, it rises by one.

The key opens nothing until the new policy is bundled and signed by enough people.

Example:

  fleetctl key add anna.json --dir lab && fleetctl policy bundle --dir lab`,
	Run: func(ctx context.Context, c *command.Call) error {
		flags := c.Flags()
		dir, output := dirFlag(flags), outputFlag(flags)
		if err := c.Parse(flags); err != nil {
			return err
		}
		path, err := oneArgument(flags, "the enrolment REQUEST")
		if err := errors.Join(err, checkFormat(*output)); err != nil {
			return err
		}
		data, err := readBounded(path, "the person's `bastion-agent enroll` makes it", enrolment.MaxFile)
		if err != nil {
			return err
		}
		r, err := enrolment.Parse(data)
		if err != nil {
			return command.Refuse(hint.New(fmt.Errorf("%s: %s: %s", enrolmentMalformed, path, shortened(err)), "%s", hint.Of(err)))
		}
		key, done, err := state(*dir).addKey(r, time.Now())
		if err != nil {
			return err
		}
		if err := show(c.Stdout, *output, addReport{keyReport: key, Version: done.policy.Version, Before: done.before},
			[]string{"ENROLLED", state(*dir).policyFile()}, append(key.facts(), []string{"policy version", done.versionText()})); err != nil {
			return err
		}
		fmt.Fprintf(c.Stderr, "fleetctl: next: `fleetctl policy bundle`, and `fleetctl policy sign` by those who believe this\n")
		return nil
	},
}

// addReport is what `fleetctl key add -o json` prints. Its fields stay.
type addReport struct {
	keyReport
	Version uint64 `json:"version"`        // of policy.toml, now
	Before  uint64 `json:"version_before"` // lower if it had to rise
}

func refuseKey(reason policies.Reason, mend, format string, args ...any) error {
	return command.Refuse(hint.New(fmt.Errorf("%s: %s", reason, visible(fmt.Sprintf(format, args...))), "%s", mend))
}

// addKey verifies a request and enrols its key.
func (d state) addKey(r enrolment.Request, now time.Time) (keyReport, rewritten, error) {
	k := policies.Key{Public: r.Public, Evidence: r.Shown.Kind, Challenge: r.Challenge, Attestation: r.Attestation, Signature: r.Signature}
	print := policies.Fingerprint(k.Public)
	var report keyReport
	done, err := d.rewrite(now, func(name string, data []byte) ([]byte, error) {
		f, err := d.fleet()
		if err != nil {
			return nil, err
		}
		old, err := policies.Decode(name, data)
		if err != nil {
			return nil, err
		}
		if r.Fleet != f.Name {
			return nil, refuseKey(policies.AttestationChallenge, "the request belongs into that fleet's directory; this fleet's own challenge comes from `fleetctl key challenge "+r.Name+"`",
				"the request is for fleet %q, and this is %q", r.Fleet, f.Name)
		}
		if !hasKeys(old, r.Name) {
			return nil, refuseKey(policies.UserUnknown, fmt.Sprintf("add [[engineer]] with name = %q to %s first", r.Name, name), "nobody is called %q", r.Name)
		}
		if slices.Contains(old.Hardware.Revoked, print) {
			return nil, refuseKey(policies.KeyRevoked, "a key that was revoked does not come back: make a new one", "%s is in hardware.revoked", print)
		}
		if owner, ok := ownerOf(old, k.Public); ok {
			return nil, refuseKey(keyEnrolled, "`fleetctl key show "+print+"` shows it", "%s is enrolled already, as a key of %s", print, owner)
		}
		if a, err := old.SSH.Algorithms(); err == nil && !slices.Contains(a.PublicKeys, keyTypeOf(k.Public)) {
			return nil, refuseKey(policies.AttestationKeyType, "enrol a key of another type, or add the type to ssh.user_keys", "the key is of type %s, which ssh.user_keys does not have", keyTypeOf(k.Public))
		}
		if _, err := d.outstanding(r.Challenge, now); err != nil {
			return nil, err
		}
		return policies.AddKey(name, data, r.Name, k)
	}, func(p policies.Policy) error {
		if v := p.Accept(r.Name, k); !v.Allow {
			mend := p.Mend(r.Name, k)
			if mend == "" {
				mend = "what the policy asks of keys is in its [hardware] and in ssh.verify_required"
			}
			return refuseKey(v.Reason, mend, "%s", v.Detail)
		}
		if other, shared := p.OnCardOf(r.Name, k); shared {
			return refuseKey(policies.KeyCardShared, "enrol a key of a card that nobody else has, or take "+other+"'s keys on this one away first", "%s has a key on the same card", other)
		}
		report = reportKey(p, r.Name, kindOf(p, r.Name), k)
		return nil
	}, func() (func() error, error) { return d.burn(r.Challenge) })
	return report, done, err
}

// burn uses a challenge up. The undo is for a policy that could not be written.
func (d state) burn(line string) (undo func() error, err error) {
	challenge, err := hardkey.ParseChallenge(line)
	if err != nil {
		return nil, err
	}
	return d.answered(challenge)
}

// ownerOf finds whose key something is in a policy, robots included.
func ownerOf(p policies.Policy, public string) (name string, ok bool) {
	for _, r := range p.Robots {
		if r.Public == public {
			return r.Name, true
		}
	}
	for _, k := range keyReports(p) {
		if k.Public == public {
			return k.Name, true
		}
	}
	return "", false
}

func kindOf(p policies.Policy, name string) policies.Kind {
	if slices.ContainsFunc(p.BreakGlass, func(b policies.BreakGlass) bool { return b.Name == name }) {
		return policies.KindBreakGlass
	}
	return policies.KindEngineer
}

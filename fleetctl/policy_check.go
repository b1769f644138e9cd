package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"time"

	"mayfly/fleetctl/plan"
	"mayfly/fleetctl/rotate"
	"mayfly/internal/command"
	"mayfly/internal/hint"
	"mayfly/inventory"
	"mayfly/policies"
)

var policyCheckVerb = command.Verb{
	Name:    "policy check",
	Args:    "--dir DIR",
	Summary: "check fleet.toml and policy.toml, and prove that the rotation rules can be kept",
	Help: `Reads DIR/fleet.toml and DIR/policy.toml as strictly as everything else does, and proves that the rotation rules can be kept by this fleet: the
arithmetic is shown for each region, cap, window and rate. Rules that cannot keep both max_age and every floor are refused (exit code 3), with the
region, the arithmetic, and the smallest single change that would mend it. Where the release in use ends lives sooner than max_age, it says so. The evidence of every enrolled key is verified: one that is rejected would keep its owner out, and is refused here with its reason. It
changes nothing.

Example:

  fleetctl policy check --dir lab`,
	Run: func(ctx context.Context, c *command.Call) error {
		fs := c.Flags()
		dir := dirFlag(fs)
		output := outputFlag(fs)
		if err := c.Parse(fs); err != nil {
			return err
		}
		if err := errors.Join(noArguments(fs), checkFormat(*output)); err != nil {
			return err
		}
		d, now := state(*dir), time.Now()
		f, p, err := d.checked(now)
		if refused := (*rotate.Refused)(nil); errors.As(err, &refused) && *output == "json" {
			return errors.Join(err, show(c.Stdout, *output, checkedPolicy{Fleet: f.Name, Policy: p.Version, Refused: refused.Why}, nil, nil))
		}
		if err != nil {
			return err
		}
		if err := d.compareRelease(c, p, now); err != nil {
			return err
		}
		noteOutside(c, p)
		noteOperators(c, f, p)
		noteKeyless(c, p)
		noteUnproved(c, f, p)
		if err := d.noteHistory(c, p); err != nil {
			return err
		}
		if err := noRejected(c, p); err != nil {
			return err
		}
		proof, _ := prove(f, p, now) // not refused: checked has looked
		if *output == "json" {
			return show(c.Stdout, *output, checkedPolicy{Fleet: f.Name, Policy: p.Version, Proof: proof}, nil, nil)
		}
		fmt.Fprintf(c.Stdout, "fleet %s: %d regions, %d servers; policy %d: %d engineers, %d grants, until %s\n",
			f.Name, len(f.Regions), len(f.Servers), p.Version, len(p.Engineers), len(p.Grants), p.Expires.Format(time.RFC3339))
		if len(proof) == 0 {
			return nil
		}
		var rows [][]string
		for _, l := range proof {
			rows = append(rows, []string{l.Scope, l.Name, l.Sum})
		}
		fmt.Fprintln(c.Stdout)
		return show(c.Stdout, *output, nil, []string{"RULE", "OF", "ARITHMETIC"}, rows)
	},
}

// checkedPolicy is the result in JSON: the arithmetic by which the rules hold, or why they cannot.
type checkedPolicy struct {
	Fleet   string        `json:"fleet"`
	Policy  uint64        `json:"policy"`
	Proof   plan.Proof    `json:"proof,omitempty"`
	Refused plan.Refusals `json:"refused,omitempty"`
}

// prove does the arithmetic for a fleet in which every server serves.
func prove(f inventory.Fleet, p policies.Policy, now time.Time) (plan.Proof, plan.Refusals) {
	if f.BastionsOnly() {
		return nil, nil // nothing to plan
	}
	s := rotate.Whole(f, p.Rotation)
	s.Zones = zones(p.Rotation)
	return plan.Check(s, rotate.Rules(f, p.Rotation, nil), now)
}

// noteOutside names who has addresses of their own that the bastion never admits.
func noteOutside(c *command.Call, p policies.Policy) {
	for _, o := range p.Outside() {
		what := "nobody connects from there"
		if o.Out {
			what = "LOCKED OUT: none of their addresses is in the list"
		}
		fmt.Fprintf(c.Stderr, "fleetctl: note: %s: allow has %s, which is outside ssh.allow: %s\n", o.User, o.Prefix, what)
	}
}

// noteOperators says what nobody may have done.
func noteOperators(c *command.Call, f inventory.Fleet, p policies.Policy) {
	if len(p.Operators) == 0 && !f.Test {
		fmt.Fprintln(c.Stderr, "fleetctl: note: no [[operator]]: `drain`, `ca`, rotations outside of the schedule, `image use` and the first certificate of a bastion's key are refused (docs/formats/request.md)")
	}
}

// noteKeyless names who can do nothing for want of a key.
func noteKeyless(c *command.Call, p policies.Policy) {
	for _, e := range p.Engineers {
		if len(e.Keys) == 0 {
			fmt.Fprintf(c.Stderr, "fleetctl: note: engineer %s has no key, and can do nothing until `fleetctl key add`\n", e.Name)
		}
	}
	for _, b := range p.BreakGlass {
		if len(b.Keys) == 0 {
			fmt.Fprintf(c.Stderr, "fleetctl: note: break-glass identity %s has no key: there is no way in by it\n", b.Name)
		}
	}
}

// noteUnproved names the servers that begin no life, since nothing is known of the TPM that the policy wants a quote of.
func noteUnproved(c *command.Call, f inventory.Fleet, p policies.Policy) {
	if p.Image.RequiresTPM() != policies.TPMRequired {
		return
	}
	for _, s := range f.Rebuilt() {
		if s.EndorsementKey == "" {
			fmt.Fprintf(c.Stderr, "fleetctl: note: server %s has no endorsement_key, and begins no life while the policy's image.tpm is required (docs/formats/attestation.md)\n", s.Name)
		}
	}
}

// noRejected lists the keys that would let nobody in, and refuses a policy that has any.
func noRejected(c *command.Call, p policies.Policy) error {
	list := p.Rejected()
	for _, r := range list {
		fmt.Fprintf(c.Stderr, "fleetctl: %s %s of %s: %s\n", r.Reason, r.Fingerprint, r.Name, r.Detail)
	}
	if len(list) == 0 {
		return nil
	}
	return command.Refuse(hint.New(fmt.Errorf("%s: %d enrolled keys let nobody in", list[0].Reason, len(list)),
		"`fleetctl key revoke FINGERPRINT` takes one away, `fleetctl key add` enrols another; `fleetctl policy bundle --keep-rejected` leaves them where they are and their owners out"))
}

// compareRelease says where the release in use, if there is one, allows less than the policy.
func (d state) compareRelease(c *command.Call, p policies.Policy, now time.Time) error {
	v, err := d.current()
	if err != nil || v == 0 {
		return err
	}
	t, _, err := d.trust()
	if err != nil {
		return err
	}
	s, _, err := releaseStatement(t, d.releaseDir(strconv.FormatUint(v, 10)), now)
	if err != nil {
		fmt.Fprintf(c.Stderr, "fleetctl: note: not compared with the release in use, which does not load: %v\n", err)
		return nil
	}
	if short := rotate.ShortLife(p.Rotation, *s); short != "" {
		fmt.Fprintf(c.Stderr, "fleetctl: note: %s\n", short)
	}
	return nil
}

// checked reads both files, and refuses rules that the planner could not keep.
func (d state) checked(now time.Time) (inventory.Fleet, policies.Policy, error) {
	f, err := d.fleet()
	if err != nil {
		return f, policies.Policy{}, err
	}
	p, err := d.policy(f)
	if err != nil {
		return f, p, err
	}
	if !now.Before(p.Expires) {
		return f, p, hint.New(command.Refuse(fmt.Errorf("%s: the policy expired at %s", d.policyFile(), p.Expires.Format(time.RFC3339))),
			"set expires to a day to come, and raise version")
	}
	if f.BastionsOnly() {
		return f, p, nil
	}
	if _, refused := prove(f, p, now); len(refused) > 0 {
		return f, p, hint.New(fmt.Errorf("%s: %w", d.policyFile(), &rotate.Refused{Why: refused}), "%s", mend(refused))
	}
	return f, p, d.bastionsCanServe(f)
}

// bastionsCanServe refuses a fleet whose rebuilt bastions would find too few witnesses to believe any policy.
func (d state) bastionsCanServe(f inventory.Fleet) error {
	if !slices.ContainsFunc(f.Servers, func(s inventory.Server) bool { return s.Role == inventory.RoleBastion }) {
		return nil
	}
	t, _, err := d.trust()
	if errors.Is(err, fs.ErrNotExist) {
		return nil // before init
	}
	if err != nil {
		return err
	}
	if t.WitnessThreshold > len(f.Witnesses) {
		return hint.New(command.Refuse(fmt.Errorf("%s: %d witnesses must confirm a policy, and servers that are bastions know of %d", d.fleetFile(), t.WitnessThreshold, len(f.Witnesses))),
			"witnesses = [\"http://ADDRESS:PORT\"] at the top of fleet.toml")
	}
	return nil
}

// mend names what to change so that the planner can keep the rules.
func mend(refused plan.Refusals) string {
	if len(refused) == 0 {
		return "correct the policy's [rotation]"
	}
	if change := refused[0].Change; change != "" {
		return "the smallest change that mends it: " + change
	}
	switch refused[0].Code {
	case plan.FloorImpossible:
		return "lower the region's floor or give it another server"
	case plan.AgeImpossible:
		return "raise max_age or max_parallel, lower drain_limit, boot_limit, bake or retries, or give the region more capacity above its floor"
	}
	return "correct the policy's [rotation]"
}

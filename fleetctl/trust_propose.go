package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"mayfly/bastion/hardkey"
	"mayfly/internal/command"
	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/policies/trust"
)

var trustProposeVerb = command.Verb{
	Name:    "trust propose",
	Args:    "--dir DIR [--drop-approver NAME]... [--approver NAME=REQUEST]... [--threshold N] [--drop-recovery NAME]... [--recovery NAME=REQUEST]... [--recovery-threshold N]",
	Summary: "make the next trust policy, for people to sign",
	Help: `Makes DIR/trust-next.json from the trust policy in force and what is to change, shows the changes, and says who has to sign it. Nothing
changes before ` + "`fleetctl trust sign`" + ` by enough people and ` + "`fleetctl trust apply`" + `. A REQUEST is what bastion-agent enroll wrote, as for
` + "`fleetctl init`" + `; it answers a challenge of ` + "`fleetctl key challenge`" + `.

A NAME that is there gets another key; dropped and given again, the new key takes the place of all old ones. Builders are changed with
--drop-builder, --builder and --builder-threshold, witnesses with --drop-witness, --witness and --witness-threshold, rules for hardware with
--hardware, certificates for Secure Boot with --drop-secure-boot and --secure-boot, keys of the public ledger with --drop-ledger-key (a
fingerprint) and --ledger-key.

A lost approver's key: the others sign. Fewer approvers left than the threshold: enough recovery people sign, and the new
approvers; then nothing but approvers may change, and the threshold may not fall. A lost recovery key: the approvers sign.

Example:

  fleetctl trust propose --dir lab --drop-approver bo --approver bo=bo-new.json`,
	Run: runTrustPropose,
}

func runTrustPropose(ctx context.Context, c *command.Call) (err error) {
	flags := c.Flags()
	dir := dirFlag(flags)
	drop := map[string]*[]string{}
	give := map[string]*[]string{}
	for _, role := range []string{"approver", "recovery", "builder", "witness"} {
		drop[role] = manyFlag(flags, "drop-"+role, "`NAME` who is no "+role+" any more")
		give[role] = manyFlag(flags, role, "`NAME=FILE`: a key, or another key, of a "+role)
	}
	threshold := flags.Int("threshold", -1, "`people` whose signatures a release, a policy or the next trust policy needs")
	recoveryThreshold := flags.Int("recovery-threshold", -1, "`people` of the recovery that name other approvers")
	witnessThreshold := flags.Int("witness-threshold", -1, "`witnesses` that must confirm a policy")
	builderThreshold := flags.Int("builder-threshold", -1, "`builders` whose signatures a release needs")
	dropLedger := manyFlag(flags, "drop-ledger-key", "`fingerprint` of a key that the ledger is not signed with any more")
	addLedger := manyFlag(flags, "ledger-key", "`FILE`: another public key that the ledger is signed with")
	minRelease := flags.Uint64("min-release", 0, "`version` below which no release boots")
	dropSecureBoot := manyFlag(flags, "drop-secure-boot", "`SHA-256` of a certificate that images are not signed under any more")
	addSecureBoot := manyFlag(flags, "secure-boot", "`FILE`: a certificate (PEM) in servers' firmware that images are signed under")
	hardware := flags.String("hardware", "", "`file` of rules for the keys' hardware, TOML, in place of those in force")
	if err := c.Parse(flags); err != nil {
		return err
	}
	if err := noArguments(flags); err != nil {
		return err
	}
	d, now := state(*dir), time.Now()
	unlock, err := lockDirectory(string(d))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	old, data, err := d.trust()
	if err != nil {
		return err
	}
	next, err := trust.Parse(data)
	if err != nil {
		return err
	}
	next.Version, next.Previous = old.Version+1, trust.Sum(data)
	met := answered{proposed: d.proposed(trust.Sum(data))}
	approvers, err := d.readPeople("approver", *give["approver"], old.Fleet, old.Test, &met, now)
	if err != nil {
		return err
	}
	recovery, err := d.readPeople("recovery", *give["recovery"], old.Fleet, old.Test, &met, now)
	if err != nil {
		return err
	}
	builders, err := d.readPeople("builder", *give["builder"], old.Fleet, old.Test, &met, now)
	if err != nil {
		return err
	}
	witnesses, err := witnessKeys(*give["witness"])
	if err != nil {
		return err
	}
	for _, l := range []struct {
		role string
		list *[]trust.Person
	}{{"approver", &next.Approvers}, {"recovery", &next.Recovery.People}, {"builder", &next.Builders}, {"witness", &next.Witnesses}} {
		if *l.list, err = without(*l.list, l.role, *drop[l.role]); err != nil {
			return err
		}
	}
	next.Approvers, next.Recovery.People, next.Builders = approvers.join(next.Approvers), recovery.join(next.Recovery.People), builders.join(next.Builders)
	next.Witnesses = append(next.Witnesses, witnesses...)
	for _, n := range []struct {
		given int
		at    *int
	}{{*threshold, &next.Threshold}, {*recoveryThreshold, &next.Recovery.Threshold}, {*builderThreshold, &next.BuilderThreshold}, {*witnessThreshold, &next.WitnessThreshold}} {
		if n.given >= 0 {
			*n.at = n.given
		}
	}
	if next.LedgerKeys, err = ledgerKeys(next.LedgerKeys, *dropLedger, *addLedger); err != nil {
		return err
	}
	if *minRelease > 0 {
		next.MinRelease = *minRelease
	}
	for _, sum := range *dropSecureBoot {
		if !slices.Contains(next.SecureBoot, sum) {
			return command.Usagef("--drop-secure-boot %q: no certificate of the trust policy has this SHA-256; `fleetctl trust show` lists them", sum)
		}
		next.SecureBoot = slices.DeleteFunc(next.SecureBoot, func(have string) bool { return have == sum })
	}
	if next.SecureBoot, err = secureBoot(next.SecureBoot, *addSecureBoot); err != nil {
		return err
	}
	if *hardware != "" {
		if next.Hardware, err = readHardware(*hardware); err != nil {
			return err
		}
	}
	lines := changes(old, next)
	if len(lines) == 0 {
		return command.Usagef("nothing is to change: say what, with --drop-approver, --approver, --threshold and the like")
	}
	if err := trust.Follows(old, next, trust.ByApprovers); err != nil {
		return command.Refuse(hint.New(err, "give people, keys, cards and thresholds that fit together; nothing was made"))
	}
	if err := d.writeNextTrust(next, met.list); err != nil {
		return err
	}
	fmt.Fprintf(c.Stdout, "%s: trust policy %d of fleet %s\n", d.nextTrustFile(), next.Version, next.Fleet)
	for _, line := range lines {
		fmt.Fprintf(c.Stdout, "  %s\n", line)
	}
	need := fmt.Sprintf("%d of the approvers %s", old.Threshold, strings.Join(names(old), ", "))
	if old.Recovery.Threshold > 0 && trust.Follows(old, next, trust.ByRecovery) == nil {
		need += fmt.Sprintf(" (or, if they are lost, %d of the recovery)", old.Recovery.Threshold)
	}
	fmt.Fprintf(c.Stderr, "fleetctl: next: `fleetctl trust sign` by %s, and by %d of the new approvers %s; then `fleetctl trust apply`\n",
		need, next.Threshold, strings.Join(names(next), ", "))
	return nil
}

// writeNextTrust puts what is proposed in the place of what was, whose signatures count no more, and uses up the challenges that were answered
// for it. The caller holds the directory.
func (d state) writeNextTrust(next *trust.Trust, challenges []hardkey.Challenge) error {
	data, err := next.Marshal()
	if err != nil {
		return err
	}
	if err := remove(signatures(d.nextTrustFile())); err != nil {
		return err
	}
	undo, err := d.answered(challenges...)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(d.nextTrustFile(), data, 0o644); err != nil {
		return errors.Join(err, undo())
	}
	return nil
}

// proposed is all that is shown in the proposal that waits to follow a trust policy, nothing where none does: who proposes it anew, changed,
// needs no new answers for the same keys.
func (d state) proposed(follows string) (all []hardkey.Shown) {
	data, err := readBounded(d.nextTrustFile(), "", trust.MaxSize)
	if err != nil {
		return nil
	}
	t, err := trust.Parse(data)
	if err != nil || t.Previous != follows {
		return nil
	}
	for _, p := range slices.Concat(t.Approvers, t.Recovery.People, t.Builders) {
		all = append(all, p.Shown...)
	}
	return all
}

// without leaves out those who are named, each of whom has to be there.
func without(people []trust.Person, role string, drop []string) ([]trust.Person, error) {
	for _, name := range drop {
		i := slices.IndexFunc(people, func(p trust.Person) bool { return p.Name == name })
		if i < 0 {
			return nil, hint.New(fmt.Errorf("no %s %q", role, name), "`fleetctl trust show` lists them")
		}
		people = slices.Delete(people, i, i+1)
	}
	return people, nil
}

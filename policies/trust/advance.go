package trust

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"mayfly/internal/canonical"
)

// Namespace of signatures over a trust policy that follows another.
const Namespace = "mayfly-trust"

// How a change of the trust policy came about.
const (
	ByApprovers = "approvers" // enough of the old approvers signed
	ByRecovery  = "recovery"  // they did not, and enough of the old recovery people did
)

// Reasons why a trust policy does not follow another.
const (
	OldThreshold   = "trust_old_threshold"   // too few of the old approvers signed, and too few of the recovery people
	NewThreshold   = "trust_new_threshold"   // too few of the new approvers signed
	Malformed      = "trust_malformed"       // signed, and not a trust policy, or one with evidence that does not verify
	OtherFleet     = "trust_other_fleet"     // of another fleet, or a test fleet's for one that is none, or the other way
	Older          = "trust_older"           // of a version that is past
	Forked         = "trust_forked"          // another file of the present version, or one that follows another file than the present one
	Jump           = "trust_jump"            // a version is left out
	RecoveryLimits = "trust_recovery_limits" // the recovery quorum changed more than the approvers, or lowered the threshold
	LostEvidence   = "trust_lost_evidence"   // a key whose evidence was there stays without it
	MinReleaseLess = "trust_min_release"     // an older release would boot again
)

// Refusal says why a trust policy does not follow another.
type Refusal struct {
	Reason string
	Err    error
}

func (r *Refusal) Error() string { return r.Reason + ": " + r.Err.Error() }
func (r *Refusal) Unwrap() error { return r.Err }

// Refused makes a program exit with "refused by policy".
func (r *Refusal) Refused() bool { return true }

func refuse(reason, format string, args ...any) *Refusal {
	return &Refusal{reason, fmt.Errorf(format, args...)}
}

// Change is one step from a trust policy to the next.
type Change struct {
	Trust *Trust   // from now on
	How   string   // ByApprovers or ByRecovery
	Old   []string // people of the old trust policy whose signatures let it happen
	New   []string // approvers of the new one who signed it
}

// Advance returns the step from old to the trust policy in data, or a *Refusal. It takes the old threshold of approvers, or else the old recovery
// quorum, and in both cases the new threshold of the new approvers, all over the same bytes: nobody is replaced by those who have no say, and
// nobody takes over a fleet with keys that do not sign. It is pure: a follower that was away applies one step after the other.
func Advance(old *Trust, data, sigs []byte) (*Change, error) {
	if old == nil {
		return nil, refuse(OldThreshold, "no trust policy")
	}
	if sum := Sum(data); sum == old.Sum() {
		return nil, refuse(Older, "it is the trust policy that is in force, version %d", old.Version)
	}
	c := &Change{How: ByApprovers}
	var err, recovery error
	if c.Old, err = old.Approved(Namespace, data, sigs); err != nil {
		c.How = ByRecovery
		if c.Old, recovery = old.Recovered(Namespace, data, sigs); recovery != nil {
			return nil, refuse(OldThreshold, "old approvers: %w; recovery: %w", err, recovery)
		}
	}
	if c.Trust, err = Parse(data); err != nil {
		return nil, refuse(Malformed, "%w", err)
	}
	if err := follows(old, c.Trust); err != nil {
		return nil, err
	}
	if c.New, err = c.Trust.Approved(Namespace, data, sigs); err != nil {
		return nil, refuse(NewThreshold, "new approvers: %w", err)
	}
	if c.How == ByRecovery {
		if err := recoveryOnly(old, c.Trust); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// Follows reports what keeps next from following old, whoever signs it: for who is about to have it signed. how is ByApprovers or ByRecovery.
func Follows(old, next *Trust, how string) error {
	if err := next.Check(); err != nil {
		return refuse(Malformed, "%w", err)
	}
	if err := follows(old, next); err != nil {
		return err
	}
	if how == ByRecovery {
		return recoveryOnly(old, next)
	}
	return nil
}

// follows is all that does not depend on who signed.
func follows(old, next *Trust) error {
	switch {
	case next.Fleet != old.Fleet:
		return refuse(OtherFleet, "it is of fleet %q, not %q", next.Fleet, old.Fleet)
	case next.Test != old.Test:
		return refuse(OtherFleet, "it says test = %t: a fleet is a test fleet from its first day to its last, or never", next.Test)
	case next.Version == old.Version:
		return refuse(Forked, "it is another version %d than the one in force", old.Version)
	case next.Version < old.Version:
		return refuse(Older, "version %d is older than %d, which is in force", next.Version, old.Version)
	case next.Version != old.Version+1:
		return refuse(Jump, "version %d does not follow %d: each step is shown", next.Version, old.Version)
	case next.Previous != old.Sum():
		return refuse(Forked, "it follows another version %d than the one in force", old.Version)
	case next.MinRelease < old.MinRelease:
		return refuse(MinReleaseLess, "min_release %d is below %d", next.MinRelease, old.MinRelease)
	}
	shown := map[string]bool{}
	for _, p := range slices.Concat(old.Approvers, old.Recovery.People, old.Builders) {
		for i, key := range p.Keys {
			shown[key] = isShown(p.ShownFor(i))
		}
	}
	for _, p := range slices.Concat(next.Approvers, next.Recovery.People, next.Builders) {
		for i, key := range p.Keys {
			if shown[key] && !isShown(p.ShownFor(i)) {
				return refuse(LostEvidence, "%s, key %d: what was shown for it is left out", p.Name, i+1)
			}
		}
	}
	return nil
}

// recoveryOnly: keys from a safe name other approvers and do nothing else. All else the new approvers change afterwards.
func recoveryOnly(old, next *Trust) error {
	if next.Threshold < old.Threshold {
		return refuse(RecoveryLimits, "the threshold of approvers falls from %d to %d", old.Threshold, next.Threshold)
	}
	want := *old
	want.Version, want.Previous, want.Approvers, want.Threshold = next.Version, next.Previous, next.Approvers, next.Threshold
	a, b := reflect.ValueOf(want), reflect.ValueOf(*next)
	for i := range a.NumField() {
		if !reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()) {
			name, _, _ := strings.Cut(a.Type().Field(i).Tag.Get("json"), ",")
			return refuse(RecoveryLimits, "%s changes: the recovery quorum names approvers, who change the rest", name)
		}
	}
	return nil
}

// Sum is the SHA-256 of a trust policy's bytes, hex: what the next one calls previous.
func Sum(data []byte) string {
	h := sha256.Sum256(data)
	return hex.EncodeToString(h[:])
}

// Sum is Sum of its own bytes; nothing for one that could not be written.
func (t *Trust) Sum() string {
	data, err := canonical.Marshal(t)
	if err != nil {
		return ""
	}
	return Sum(data)
}

// Follow goes from root to the newest trust policy, step by step. read returns a version's bytes and signatures, and nil bytes where there is none
// yet. What is there and does not follow is an error: whoever cannot tell which way is right stays where nobody gets in.
func Follow(root *Trust, read func(version uint64) (data, sigs []byte, err error)) (newest *Trust, steps []Change, err error) {
	if root == nil {
		return nil, nil, errors.New("no trust policy to begin with")
	}
	for newest = root; ; {
		if len(steps) == MaxSteps {
			return nil, nil, fmt.Errorf("more than %d trust policies follow version %d", MaxSteps, root.Version)
		}
		data, sigs, err := read(newest.Version + 1)
		if err != nil {
			return nil, nil, fmt.Errorf("trust policy %d: %w", newest.Version+1, err)
		}
		if data == nil {
			return newest, steps, nil
		}
		step, err := Advance(newest, data, sigs)
		if err != nil {
			return nil, nil, fmt.Errorf("trust policy %d: %w", newest.Version+1, err)
		}
		steps = append(steps, *step)
		newest = step.Trust
	}
}

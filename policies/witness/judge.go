package witness

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"mayfly/policies/trust"
)

// MaxSkew is how far a witness's clock may be from the asker's, or of a release from the other witnesses'. It is wide, since it only has to notice a clock that was set
// back to bring an expired file to life again.
const MaxSkew = 10 * time.Minute

// Reason codes of a Verdict.
const (
	Confirmed = "confirmed"       // enough witnesses name exactly this file
	Missing   = "witness_missing" // too few do
	Frozen    = "bundle_frozen"   // a witness knows a newer version: this one was held back
	Forked    = "bundle_forked"   // a witness knows another file of the same version: two were signed
)

// Verdict is what the answers come to. Its zero value confirms nothing.
type Verdict struct {
	Fresh     bool
	Reason    string
	Witnesses []string // who confirmed, sorted
	Newer     uint64   // with Frozen: the newest version named
	Others    []string // who signed that another file of this version is theirs, sorted
	Detail    string   // for logs: why the others did not count
}

// Error says a verdict that is not fresh.
func (v Verdict) Error() string {
	text := fmt.Sprintf("%s: confirmed by %d witnesses", v.Reason, len(v.Witnesses))
	if v.Newer > 0 {
		text = fmt.Sprintf("%s: version %d is out", v.Reason, v.Newer)
	}
	if v.Detail != "" {
		text += ": " + v.Detail
	}
	return text
}

// Refused makes a program exit with "refused by policy".
func (v Verdict) Refused() bool { return true }

// Judge decides whether the file of this version and hash is the newest, from the answers that witnesses gave to the question. Where
// the trust policy's threshold is 0, which it can be in test fleets only, every file is.
//
// One signed answer that names a newer version, or another file of this version, is enough to refuse. An answer that is malformed, to
// another question, by a stranger, of another time or by a witness that counts already adds nothing and harms nothing.
func Judge(t *trust.Trust, q Question, version uint64, sum string, answers [][]byte, now time.Time) Verdict {
	if t == nil || t.WitnessThreshold < 0 || t.WitnessThreshold == 0 && !t.Test {
		return Verdict{Reason: Missing, Detail: "no trust policy that says whom to ask"}
	}
	if t.WitnessThreshold == 0 {
		return Verdict{Fresh: true, Reason: Confirmed, Detail: "a test fleet without witnesses"}
	}
	var confirmed, others, rivals []string
	var newer uint64
	forked := false
	for i, data := range answers {
		a, err := Open(t, data)
		if err == nil {
			err = a.answers(q, now)
		}
		switch {
		case err != nil:
			others = append(others, fmt.Sprintf("answer %d: %v", i+1, err))
		case a.Version > version:
			newer = max(newer, a.Version)
			others = append(others, fmt.Sprintf("%s names version %d", a.Witness, a.Version))
		case a.Version < version:
			others = append(others, fmt.Sprintf("%s knows version %d only", a.Witness, a.Version))
		case a.SHA256 != sum:
			forked = true
			if !slices.Contains(rivals, a.Witness) {
				rivals = append(rivals, a.Witness)
			}
			others = append(others, fmt.Sprintf("%s names another file of version %d, sha256 %s", a.Witness, a.Version, a.SHA256))
		case !slices.Contains(confirmed, a.Witness):
			confirmed = append(confirmed, a.Witness)
		}
	}
	slices.Sort(confirmed)
	slices.Sort(rivals)
	v := Verdict{Witnesses: confirmed, Others: rivals, Newer: newer, Detail: strings.Join(others, "; ")}
	switch {
	case newer > 0:
		v.Reason = Frozen
	case forked:
		v.Reason = Forked
	case len(confirmed) < t.WitnessThreshold:
		v.Reason = Missing
		v.Detail = strings.Join(append(others, fmt.Sprintf("%d of %d needed answered so", len(confirmed), t.WitnessThreshold)), "; ")
	default:
		v.Fresh, v.Reason = true, Confirmed
	}
	return v
}

// answers reports why an answer is not one to this question at this time.
func (a Answer) answers(q Question, now time.Time) error {
	if err := a.repeats(q); err != nil {
		return err
	}
	if a.Time.Sub(now).Abs() > MaxSkew {
		return fmt.Errorf("%s says that it is %s, and here it is %s", a.Witness, a.Time.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return nil
}

// repeats reports why an answer is not one to this question, whenever it was given.
func (a Answer) repeats(q Question) error {
	switch {
	case q.Nonce == "" || a.Nonce != q.Nonce:
		return fmt.Errorf("%s answers another question", a.Witness)
	case a.Fleet != q.Fleet:
		return fmt.Errorf("%s answers for fleet %q", a.Witness, a.Fleet)
	case a.Subject != q.Subject:
		return fmt.Errorf("%s answers about %q", a.Witness, a.Subject)
	}
	return nil
}

package witness

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"mayfly/policies/trust"
)

// Reason codes of a ReleaseVerdict, beside Confirmed and Missing.
const (
	ReleaseFrozen = "release_frozen" // a witness knows a release under which this one may not boot any more: it was held back
	ReleaseForked = "release_forked" // a witness knows another release of the same version: two were signed
)

// ReleaseVerdict is what answers about releases come to. Its zero value confirms nothing.
type ReleaseVerdict struct {
	Fresh     bool
	Reason    string
	Time      time.Time // the witnesses', for the one who asked: by it validity is judged. Zero unless Fresh, and where a test fleet asks nobody: then one's own clock has to do
	Witnesses []string  // who confirmed at that time, sorted
	Newest    uint64    // the newest version that a witness of the fleet named
	Least     uint64    // the oldest that may boot, by the strictest of them
	Others    []string  // who signed that another file of this version is theirs, sorted
	Detail    string    // for logs: why the others did not count
}

// Error says a verdict that is not fresh.
func (v ReleaseVerdict) Error() string {
	text := fmt.Sprintf("%s: confirmed by %d witnesses", v.Reason, len(v.Witnesses))
	if v.Reason == ReleaseFrozen {
		text = fmt.Sprintf("%s: no release older than %d boots any more", v.Reason, v.Least)
	}
	if v.Detail != "" {
		text += ": " + v.Detail
	}
	return text
}

// Refused makes a program exit with "refused by policy".
func (v ReleaseVerdict) Refused() bool { return true }

// JudgeRelease decides whether the release of this version and hash may boot now, from the answers that witnesses gave to the question. It is for a
// machine whose clock cannot be believed, so it is not told the time: an answer is fresh because it repeats the nonce, and the
// time is what the witnesses say, whose clocks have to agree among each other.
//
// A witness confirms a release that is its newest, or an older one that may still boot; one that has not heard of it does not. One signed answer by
// which it may not boot, or which names another release of its version, is enough to refuse. An answer that is malformed, to another question,
// by a stranger or by a witness that counts already adds nothing and harms nothing.
func JudgeRelease(t *trust.Trust, q Question, version uint64, sum string, answers [][]byte) ReleaseVerdict {
	if t == nil || t.WitnessThreshold < 0 || t.WitnessThreshold == 0 && !t.Test {
		return ReleaseVerdict{Reason: Missing, Detail: "no trust policy that says whom to ask"}
	}
	if t.WitnessThreshold == 0 {
		return ReleaseVerdict{Fresh: true, Reason: Confirmed, Detail: "a test fleet without witnesses"}
	}
	if q.Subject != SubjectRelease || version == 0 {
		return ReleaseVerdict{Reason: Missing, Detail: "no question about a release"}
	}
	var v ReleaseVerdict
	var confirmed []Answer
	var others []string
	for i, data := range answers {
		a, err := Open(t, data)
		if err == nil {
			err = a.repeats(q)
		}
		if err != nil {
			others = append(others, fmt.Sprintf("answer %d: %v", i+1, err))
			continue
		}
		v.Newest, v.Least = max(v.Newest, a.Version), max(v.Least, a.Least)
		switch {
		case a.Version < version:
			others = append(others, fmt.Sprintf("%s knows version %d only", a.Witness, a.Version))
		case a.Least > version:
			others = append(others, fmt.Sprintf("%s names version %d, under which none older than %d boots", a.Witness, a.Version, a.Least))
		case a.Version == version && a.SHA256 != sum:
			if !slices.Contains(v.Others, a.Witness) {
				v.Others = append(v.Others, a.Witness)
			}
			others = append(others, fmt.Sprintf("%s names another release %d, sha256 %s", a.Witness, a.Version, a.SHA256))
		case !slices.ContainsFunc(confirmed, func(c Answer) bool { return c.Witness == a.Witness }):
			confirmed = append(confirmed, a)
		}
	}
	agreed := agreeing(confirmed)
	if n := len(confirmed) - len(agreed); n > 0 {
		others = append(others, fmt.Sprintf("the clocks of %d others differ by more than %s", n, MaxSkew))
	}
	for _, a := range agreed {
		v.Witnesses = append(v.Witnesses, a.Witness)
	}
	slices.Sort(v.Witnesses)
	slices.Sort(v.Others)
	v.Detail = strings.Join(others, "; ")
	switch {
	case v.Least > version:
		v.Reason = ReleaseFrozen
	case len(v.Others) > 0:
		v.Reason = ReleaseForked
	case len(agreed) < t.WitnessThreshold:
		v.Reason = Missing
		v.Detail = strings.Join(append(others, fmt.Sprintf("%d of %d needed answered so", len(agreed), t.WitnessThreshold)), "; ")
	default:
		v.Fresh, v.Reason, v.Time = true, Confirmed, agreed[len(agreed)/2].Time
	}
	return v
}

// agreeing returns the most answers whose times are within MaxSkew of each other, in the order of their times; of two such groups the later, since a
// clock that is behind brings what has expired to life.
func agreeing(answers []Answer) []Answer {
	answers = slices.Clone(answers)
	slices.SortFunc(answers, func(a, b Answer) int { return a.Time.Compare(b.Time) })
	var best []Answer
	for from := range answers {
		to := from
		for to < len(answers) && answers[to].Time.Sub(answers[from].Time) <= MaxSkew {
			to++
		}
		if to-from >= len(best) {
			best = answers[from:to]
		}
	}
	return best
}

package witness

import (
	"time"

	"mayfly/policies/trust"
)

// AgreedTime is what time it is, from the answers that witnesses gave to the question, whatever release each of them knows: the median of the
// most that agree. ok is false where fewer than the trust policy's threshold do, and where nobody has to be asked. A machine takes it for what has to
// be settled before it knows a release; of the release JudgeRelease decides.
func AgreedTime(t *trust.Trust, q Question, answers [][]byte) (now time.Time, ok bool) {
	if t == nil || t.WitnessThreshold < 1 {
		return time.Time{}, false
	}
	met := map[string]bool{}
	var valid []Answer
	for _, data := range answers {
		a, err := Open(t, data)
		if err != nil || a.repeats(q) != nil || met[a.Witness] {
			continue
		}
		met[a.Witness] = true
		valid = append(valid, a)
	}
	agreed := agreeing(valid)
	if len(agreed) < t.WitnessThreshold {
		return time.Time{}, false
	}
	return agreed[len(agreed)/2].Time, true
}

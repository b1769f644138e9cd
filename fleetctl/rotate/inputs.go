package rotate

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"mayfly/fleetctl/plan"
	"mayfly/internal/hint"
	"mayfly/inventory/store"
)

// grounds are what the decisions of a plan rest on, in words, by name: the release, the rules, each region's floor and capacity, and each server that is due or under
// way, with its life. Time and the last word of each server are not among them, or no plan could be carried out that was looked at before.
func grounds(p plan.Plan) map[string]string {
	g := map[string]string{"mode": string(p.Mode), "release": fmt.Sprint(p.Release), "policy": fmt.Sprintf("version %d, rules %.12s", p.Policy, p.Rules)}
	if t := p.Train; t != nil {
		g["train"] = fmt.Sprintf("release %d after %d, stage %s, %s", t.Release, t.From, t.Stage, t.Verdict)
	}
	for _, r := range p.Regions {
		g["region "+r.Name] = fmt.Sprintf("capacity %d, floor %d", r.Capacity, r.Floor)
	}
	for _, s := range p.Steps {
		if s.Due || s.State.InFlight() {
			g["server "+s.Server] = fmt.Sprintf("%s, life %d, to boot release %d", s.State, s.Epoch, s.Release)
		}
	}
	return g
}

// rulesName names rules without what one order adds to them: SHA-256, hex.
func rulesName(r plan.Rules) (string, error) {
	r.Mode, r.All, r.Only, r.Lost, r.Retry, r.Targets = plan.Scheduled, false, nil, nil, false, nil
	data, err := json.Marshal(r)
	if err != nil {
		return "", fmt.Errorf("encoding the rules: %w", err)
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}

// Grounds names what a plan was made from, as `fleetctl rotate --plan` takes it: SHA-256, hex.
func Grounds(p plan.Plan) string {
	g := grounds(p)
	var lines []string
	for name, what := range g {
		lines = append(lines, name+": "+what+"\n")
	}
	slices.Sort(lines)
	sum := sha256.Sum256([]byte(strings.Join(lines, "")))
	return hex.EncodeToString(sum[:])
}

// MinGrounds is how many digits of Grounds have to be given at least.
const MinGrounds = 12

// SamePlan refuses a plan whose grounds are not those of the plan that was looked at, and says what changed.
func SamePlan(looked plan.Plan) func(plan.Plan) error {
	return func(now plan.Plan) error {
		was, is := grounds(looked), grounds(now)
		var changed []string
		for name, what := range was {
			switch other, ok := is[name]; {
			case !ok:
				changed = append(changed, name+": was "+what+", is not due any more")
			case other != what:
				changed = append(changed, name+": was "+what+", is "+other)
			}
		}
		for name, what := range is {
			if _, ok := was[name]; !ok {
				changed = append(changed, name+": is "+what+", was not in the plan")
			}
		}
		if len(changed) == 0 {
			return nil
		}
		slices.Sort(changed)
		return changedPlan(strings.Join(changed, "; "))
	}
}

// SameGrounds refuses a plan whose grounds have another name.
func SameGrounds(hash string) func(plan.Plan) error {
	return func(now plan.Plan) error {
		if g := Grounds(now); len(hash) < MinGrounds || !strings.HasPrefix(g, strings.ToLower(hash)) {
			return changedPlan(fmt.Sprintf("the grounds are %.16s now, not %.16s", g, hash))
		}
		return nil
	}
}

func changedPlan(how string) error {
	return hint.New(refusef(InputsChanged, "%s", how), "`fleetctl plan` shows the plan as it is now; nothing was touched")
}

// IsScheduled reports whether a run is for what is due, and not for what people asked for. One that cannot be read is nobody's.
func IsScheduled(run store.Run) bool {
	var r struct {
		Rules plan.Rules `json:"rules"`
	}
	if json.Unmarshal(run.Plan, &r) != nil {
		return false
	}
	return r.Rules.Mode == plan.Scheduled && !r.Rules.All && !r.Rules.Retry && len(r.Rules.Lost) == 0
}

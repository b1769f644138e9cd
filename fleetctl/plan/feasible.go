package plan

import "time"

// Proof is the arithmetic by which rules hold, a line each.
type Proof []Line

// Line is one sum.
type Line struct {
	Scope string `json:"scope"` // "region", "role", "rack", "switch", "bmc", "mirror", "fleet", "window", "rate"
	Name  string `json:"name,omitempty"`
	Sum   string `json:"sum"`
}

// Check proves that the rules can be kept by a fleet in which every server serves, or says why not and what would mend it.
func Check(s Snapshot, r Rules, now time.Time) (Proof, Refusals) {
	_, refused := regions(s, r)
	return nil, refused
}

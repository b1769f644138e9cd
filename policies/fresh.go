package policies

import (
	"time"

	"mayfly/internal/tomlfile"
)

// Witness is what holds while the witnesses of the trust policy are silent.
type Witness struct {
	Grace Duration `toml:"grace" json:"grace"` // how long a policy that was confirmed stays good without a new confirmation
}

// Bounds of the grace.
const (
	defaultGrace = time.Hour
	maxGrace     = 24 * time.Hour
)

// WitnessGrace is how long after its last confirmation the policy still lets somebody in: what the policy says, or an hour.
func (p Policy) WitnessGrace() time.Duration {
	return pick(p.Witness.Grace.Std(), defaultGrace, maxGrace)
}

func (p Policy) checkWitness() error {
	if d := p.Witness.Grace.Std(); d < 0 || d > maxGrace {
		return tomlfile.At("witness.grace", "leave it out for the default, "+Duration(defaultGrace).String(), "witness.grace is %s: at most %s", Duration(d), Duration(maxGrace))
	}
	return nil
}

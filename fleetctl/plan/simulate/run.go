package simulate

import "mayfly/fleetctl/plan"

// Run simulates. Rules that cannot be kept are refused.
func Run(c Config) (Result, plan.Refusals) {
	_, refused := plan.Check(c.Snapshot, c.Rules, c.Start)
	return Result{}, refused
}

//go:build race

package plan

// Less under the race detector: pure arithmetic, in which it finds nothing. `testenv test` runs it whole without the detector.
const (
	fleets      = 300
	properties  = 150
	serverWeeks = 50_000
	gateRuns    = 1_000
	weekends    = 40
)

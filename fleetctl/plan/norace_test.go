//go:build !race

package plan

// How much the property tests run: fleets of TestPromises and of TestProperties, server-weeks of TestServerWeeks, trains of TestGateHonest, fleets of TestWeekends.
const (
	fleets      = 3000
	properties  = 2000
	serverWeeks = 2_000_000
	gateRuns    = 10_000
	weekends    = 400
)

//go:build race

package plan

// fleets is smaller under the race detector: pure arithmetic, in which it finds nothing. `testenv test` runs it whole without the detector.
const fleets = 300

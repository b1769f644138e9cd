//go:build !race

package plan

// fleets is how many random fleets TestPromises runs.
const fleets = 3000

//go:build race

package plan

// fleets is smaller under the race detector, which makes this pure arithmetic twenty times slower and finds nothing in it.
const fleets = 300

//go:build race

package rotate

// killStride is how far apart the points of TestKilledAnywhere are. The race detector makes SQLite, and so each of the hundred
// child processes, many times slower. `testenv test` runs it without the detector too, and then every point is tried.
const killStride = 9

// takeoverStride and manyRunnersSeeds, likewise.
const (
	takeoverStride   = 31
	manyRunnersSeeds = 2
)

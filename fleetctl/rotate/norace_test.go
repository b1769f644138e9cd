//go:build !race

package rotate

// killStride is how far apart the points of TestKilledAnywhere are: every one.
const killStride = 1

// takeoverStride is how far apart the points of TestAnotherHolder are, and manyRunnersSeeds how many runs TestManyRunners plays.
const (
	takeoverStride   = 9
	manyRunnersSeeds = 8
)

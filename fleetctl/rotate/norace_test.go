//go:build !race

package rotate

// killStride is how far apart the points of TestKilledAnywhere are: every one.
const killStride = 1

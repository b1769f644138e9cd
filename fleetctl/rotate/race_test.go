//go:build race

package rotate

// killStride is how far apart the points of TestKilledAnywhere are. The race detector makes SQLite, and so each of the hundred
// child processes, many times slower; without it every point is tried.
const killStride = 9

// Package mutate takes guards out of the source, one at a time, and sees that a test fails: a promise that no test would miss is
// none. The table (*.toml beside this file) is data: a file, the text that is the guard, what stands there instead, and which tests have
// to fail. Nothing is written into the tree: the changed file reaches the compiler by `go test -overlay`.
//
// It does not invent mutations; whoever writes a guard writes its entry. It trusts the tests to pass without the change: Run sees to that
// first, unless told that somebody else did.
//
// Read table.go, run.go.
package mutate

// Package mayfly is the module's root. It holds no code, only the tests that hold for all of it: who may import whom
// (docs/design.md, part 2), what the programs on the login path and in a server are made of, one package comment for each
// package, and gofmt.
package mayfly

// Package simulate runs the planner over days on a virtual clock: the same engine decides, and failures are drawn from a seed. It is
// pure: a configuration in, a result out, and the same bytes for the same configuration.
//
// What it does not model: traffic, and what a drain does to it.
//
// Read config.go, run.go, result.go, text.go, svg.go.
package simulate

// Package plan decides which servers are rebuilt now, which wait, and why. It is pure: data in, data out, no clock, no I/O, so
// that the planner that runs the fleet is the one that the simulation runs through thousands of fleets.
//
// Two promises hold together. Floor: planned removals never take a region under its floor, counted in capacity units
// (Mbit/s) of servers that serve and were heard of lately. Age: every server leaves before its deadline, as long as
// enough of its region works. Rules that cannot keep both are refused before anything is touched, with the arithmetic.
//
// The order is earliest deadline first. A server becomes due so early before its deadline that everything it may have to wait for could still
// be done one after the other in open windows, each rotation as slow as the rules allow: its region and its role through their floors, the fleet
// through max_parallel and max_per_hour, its rack, switch, BMC network and mirror through their caps. A hash of server and epoch
// spreads those that were booted together. Servers that serve nobody (new ones) go first: they only add capacity.
//
// Within a region nobody overtakes the head of the line, so that a large server is not starved by small ones; the
// exception is a head that could not leave even if everything in flight came back.
//
// A deadline outranks windows, max_per_hour and bake times; a floor outranks a deadline: then the server ends itself, and Danger has said so
// long before. Only Emergency goes over floors.
//
// It does not look at what is in flight beyond counting it: fleetctl/rotate carries every begun rebuild to its end.
//
// Read snapshot.go; shape.go, lead.go, feasible.go, mend.go (can the rules be kept); window.go, train.go, confidence.go; engine.go, verdict.go,
// make.go, why.go (what happens now); explain.go, danger.go; play.go, settle.go, queue.go (the same on a virtual clock, for plan/simulate).
package plan

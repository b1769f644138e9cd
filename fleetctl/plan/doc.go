// Package plan decides which servers are rebuilt now, which wait, and why. It is pure: data in, data out, no clock, no I/O, so
// that the planner that runs the fleet is the one that the simulation runs through thousands of fleets.
//
// Two promises hold together. Floor: planned removals never take a region under its floor, counted in capacity units
// (Mbit/s) of servers that serve and were heard of lately. Age: every server leaves before its deadline, as long as
// enough of its region works. Rules that cannot keep both are refused before anything is touched, with the arithmetic.
//
// The order is earliest deadline first. A server becomes due so early before its deadline that its whole region, and the
// whole fleet through max_parallel, could still be rebuilt one round after the other, each round as slow as the rules
// allow. Servers that serve nobody (new ones) go first: they only add capacity.
//
// Within a region nobody overtakes the head of the line, so that a large server is not starved by small ones; the
// exception is a head that could not leave even if everything in flight came back.
//
// It does not look at what is in flight beyond counting it: fleetctl/rotate carries every begun rebuild to its end.
//
// Read snapshot.go, refuse.go, make.go.
package plan

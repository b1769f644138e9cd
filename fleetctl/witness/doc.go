// Package witness is the service of `fleetctl witness`: it remembers the newest policy bundle that enough approvers signed, answers who
// asks for it under a nonce, and cosigns the checkpoints of listed logs (c2sp.org/tlog-witness). It is meant to run apart from the
// fleet, by somebody else.
//
// It holds no power: no key of its own opens anything. It promises two things, and both are on disk before it says a word: a version that it
// has named is never followed by an older one, and of a log it cosigns no two histories. Whoever reaches it can make it do
// no more than that: every body, table and wait is bounded.
//
// It trusts trust.json, the listed logs' keys, and its own disk.
package witness

// Package statement reads and checks the signed statements that stand beside the policy bundle and live for hours, not weeks:
// one engineer's approval for another, the opening of a break-glass identity, and the word of the fleet's signer that a server
// takes no traffic any more. Each is a file of canonical JSON (internal/canonical) with detached SSHSIG signatures in FILE.sig,
// each kind in a namespace of its own. docs/formats/statement.md describes them.
//
// Open proves who signed; it does not decide what a statement is good for. That is package policies, which is asked again with
// every decision and every change of policy: whose key approved, and whether a statement is in force.
package statement

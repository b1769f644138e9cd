// Package card is the engineer's side of a PIV card, without the library that reaches it: how a card is set up, what is asked of
// it for an enrolment, what its keys are, and why one does not answer.
//
// A card is reached through the interfaces Reach and Token, which bastion/cmd/bastion-agent implements with PC/SC (cgo, build tag
// pcsc) and the tests with a card in memory. Nothing that a card says is believed: sizes are bounded, keys and certificates are
// parsed and compared, and what a card claims about its key counts only as its attestation proves it (package hardkey).
//
// Read in this order: token.go (what a card can do), fault.go (why it did not), slot.go, key.go, secret.go (PIN and PUK), setup.go,
// evidence.go (what a key shows for itself), enroll.go, list.go, doctor.go; session.go (a card as the agent uses one) and confined.go (each
// such use in a process of its own).
//
// It does not speak the agent's protocol and asks nobody anything by itself: see bastion/agent.
package card

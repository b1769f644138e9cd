// Package agent is an ssh-agent whose keys are on smart cards: it serves OpenSSH's agent protocol on a unix socket to the programs of one
// user, finds out and shows what each signature is for, asks for PIN and touch, and has the card sign. docs/formats/agent.md describes it.
//
// The story, by files: socket and serve (who may come), handle (what they ask), bind (which SSH session they prove to be in), purpose,
// names and describe (what a signature would be for, and whether it is made), keyring, sign and card (the card, one request at a time), pin
// with pinentry, assuan, askpass and terminal, notice (touch your key), chain (other agents), reasons.
//
// Invariants: every signature by a card is one operation of that card, asked for by one message, shown before it is made; nothing of a touch
// or a PIN outlives it. A card is open only while it is read or signs. What a client sends costs at most its own connection.
//
// It trusts the kernel about whose client it serves, known_hosts about names, and the programs of its own user about nothing but what they
// prove; a program that runs as the user can still ask, and a person who touches for it has signed.
//
// It does not use the server of golang.org/x/crypto/ssh/agent: that takes 16 MiB for a message, reads private keys that it would only
// refuse, reports through package log, and does not see that a client has left while a person is waited for. Its client is used for
// chained agents. It knows no PC/SC: cards come through Cards. It keeps no keys, adds none, and forwards nothing.
package agent

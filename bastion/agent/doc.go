// Package agent is an ssh-agent whose keys are on smart cards: it serves OpenSSH's agent protocol on a unix socket to the programs of one
// user, shows what a signature is for, asks for PIN and touch, and has the card sign. It knows no PC/SC: cards come through Cards.
package agent

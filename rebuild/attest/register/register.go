// Package register says which register of the TPM mayfly-stub extends, and with what in which order: for the stub, which links no more of this, and for
// package attest, which computes what it has to hold.
package register

import "crypto/sha256"

// Release is the register for what a machine was told to be.
const Release = 14

// Measured is what it is extended with: SHA-256 each.
type Measured struct {
	Statement [sha256.Size]byte // release.json
	Trust     [sha256.Size]byte // trust.json
	Ticket    [sha256.Size]byte // ticket.json
}

// InOrder returns them as they are measured.
func (m Measured) InOrder() [][sha256.Size]byte {
	return [][sha256.Size]byte{m.Statement, m.Trust, m.Ticket}
}

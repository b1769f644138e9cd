package ticket

import (
	"crypto/sha256"
	"fmt"

	"mayfly/internal/canonical"
)

// Marshal returns the ticket's canonical bytes, which are what gets signed.
func (t Ticket) Marshal() ([]byte, error) {
	b, err := canonical.Marshal(t)
	if err != nil {
		return nil, fmt.Errorf("encoding the ticket for %q: %w", t.Server, err)
	}
	return b, nil
}

// Hash is what the controller's store keeps of a ticket: the SHA-256 of its exact bytes.
func Hash(data []byte) [32]byte { return sha256.Sum256(data) }

// parse reads canonical bytes only.
func parse(data []byte) (*Ticket, error) {
	var t Ticket
	if err := canonical.Parse(data, MaxBytes, &t); err != nil {
		return nil, fmt.Errorf("parsing ticket: %w", err)
	}
	return &t, nil
}

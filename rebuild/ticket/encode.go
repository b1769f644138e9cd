package ticket

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
)

// Marshal returns the ticket's canonical bytes: two-space indent, no HTML escapes, a newline at the end.
func (t Ticket) Marshal() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(t); err != nil {
		return nil, fmt.Errorf("encoding the ticket for %q: %w", t.Server, err)
	}
	return b.Bytes(), nil
}

// Hash is what the controller's store keeps of a ticket: the SHA-256 of its exact bytes.
func Hash(data []byte) [32]byte { return sha256.Sum256(data) }

// parse reads canonical bytes only: no unknown or repeated field, no other spelling, nothing after the object.
func parse(data []byte) (*Ticket, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	var t Ticket
	if err := d.Decode(&t); err != nil {
		return nil, fmt.Errorf("parsing ticket: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("parsing ticket: data after its end")
	}
	again, err := t.Marshal()
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, data) {
		return nil, fmt.Errorf("parsing ticket: not in canonical form")
	}
	return &t, nil
}

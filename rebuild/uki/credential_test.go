package uki

import (
	"encoding/hex"
	"testing"
)

// The digest that a real systemd-stub 252.39 measured, in a machine of TestSecureBoot.
func TestMeasured(t *testing.T) {
	const want = "4ec5108d7d9be950"
	sum := Measured([]Credential{{Name: "ticket.json.sig", Data: []byte("sig")}, {Name: "ticket.json", Data: []byte("ticket")}})
	if got := hex.EncodeToString(sum[:]); got[:len(want)] != want {
		t.Errorf("got %s, want %s...", got, want)
	}
	other := Measured([]Credential{{Name: "ticket.json", Data: []byte("ticket")}})
	if other == sum {
		t.Error("one file fewer has the same digest")
	}
}

package main

import (
	"os"
	"testing"

	"mayfly/inventory/store"
)

// TestRestoreJumps: the next life's number is beyond the signer's, or far ahead where the signer says nothing.
func TestRestoreJumps(t *testing.T) {
	d := state(t.TempDir())
	if err := os.MkdirAll(d.path("signer", "lives"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.path("signer", "lives", "a.json"), []byte(`{"server":"a","epoch":7,"signed":9}`), 0o600); err != nil {
		t.Fatal(err)
	}
	c := &store.Content{Servers: []store.Record{{Server: store.Server{Name: "a", Epoch: 3}}, {Server: store.Server{Name: "b", Epoch: 3}}}}
	if err := d.jump(c); err != nil {
		t.Fatal(err)
	}
	if c.Servers[0].Floor != 10 || c.Servers[1].Floor != 3+epochMargin {
		t.Errorf("got %d and %d", c.Servers[0].Floor, c.Servers[1].Floor)
	}
}

package signer

import (
	"path/filepath"
	"testing"
	"time"

	"mayfly/rebuild/join"
	"mayfly/rebuild/ticket"
)

// The controller marks a ticket used before it asks the signer. Where it failed in between, the ticket's second use is the first that the signer
// hears of: it must end the life, and not begin it.
func TestUsedTwiceNeverAdmits(t *testing.T) {
	f := newFleet(t)
	f.start(t)
	ctx := t.Context()
	tk, data, sig := f.begin(t)
	if err := f.store.UseTicket(ctx, ticket.Hash(data), tk.Server, tk.Epoch, time.Now()); err != nil { // and the controller crashed
		t.Fatal(err)
	}
	c, err := join.NewClient(&tk)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Join(ctx, newMachine(t).request(data, sig)); reason(err) != join.TicketUsed {
		t.Fatalf("got %v, want %s", err, join.TicketUsed)
	}
	v, err := (&lives{dir: filepath.Join(f.dir, keyDir, livesDir)}).load(tk.Server)
	if err != nil || !v.Revoked || v.Epoch != tk.Epoch || v.TLSKey != "" {
		t.Errorf("the signer's life: %+v, %v, want it revoked and begun by nobody", v, err)
	}
	if _, err := f.client.Admit(ctx, newMachine(t).request(data, sig)); reason(err) != join.TicketUsed && reason(err) != join.LifeRevoked {
		t.Errorf("admitting afterwards: got %v", err)
	}
	if err := f.client.UsedTwice(ctx, data, []byte("nobody's")); reason(err) != ticket.Unsigned {
		t.Errorf("a ticket that nobody signed: got %v, want %s", err, ticket.Unsigned)
	}
}

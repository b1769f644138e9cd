package signer

import (
	"crypto/ed25519"
	"sync"
	"testing"
	"time"

	"mayfly/inventory"
	"mayfly/policies/ledger"
	"mayfly/rebuild/join"
	"mayfly/rebuild/ticket"
)

// TestLifeProof: a server that joins is in the ledger, and is brought the proof of it on its stream, and at a renewal.
func TestLifeProof(t *testing.T) {
	f := withLedger(t)
	f.start(t)
	ctx := t.Context()
	data, _ := f.release(t, 7, nil)
	s, err := f.store.Server(ctx, testServer)
	if err != nil {
		t.Fatal(err)
	}
	epoch, err := f.store.BeginLife(ctx, testServer, s.Epoch, s.State, "test", time.Now(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.store.Move(ctx, testServer, epoch, inventory.Wiping, inventory.Booting, "test", time.Now()); err != nil {
		t.Fatal(err)
	}
	tk := f.ticketFor(t, epoch, 7, data)
	signed, sig, err := f.client.Ticket(ctx, tk)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.store.PutTicket(ctx, testServer, epoch, ticket.Hash(signed), tk.NotAfter); err != nil {
		t.Fatal(err)
	}
	c, err := join.NewClient(&tk)
	if err != nil {
		t.Fatal(err)
	}
	m := newMachine(t)
	answer, err := c.Join(ctx, m.request(signed, sig))
	if err != nil || answer.Ledger == nil {
		t.Fatalf("got %+v, %v", answer, err)
	}
	keys, err := ledger.KeysOf(f.trust)
	if err != nil {
		t.Fatal(err)
	}
	believed := func(what string, l *join.Ledger) {
		t.Helper()
		if l == nil || l.Index != answer.Ledger.Index {
			t.Fatalf("%s: got %+v, want entry %d", what, l, answer.Ledger.Index)
		}
		b, err := keys.Life(ledger.RequireLogged, testServer, m.key.Public().(ed25519.PublicKey), l.Proof, time.Now())
		if err != nil || b.Epoch != epoch {
			t.Errorf("%s: got %+v, %v", what, b, err)
		}
	}
	conn, err := c.Stream(ctx, m.pair(t, answer.TLS))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	health := join.Health{BootID: m.bootID, Ready: true, Services: map[string]string{}}
	var speaking sync.WaitGroup
	over := make(chan struct{})
	defer speaking.Wait()
	defer close(over)
	speaking.Go(func() { // a silent server loses its stream
		tick := time.NewTicker(join.HealthInterval)
		defer tick.Stop()
		for {
			if err := join.WriteFrame(conn, join.FromServer{Health: &health}); err != nil {
				t.Errorf("health: %v", err)
				return
			}
			select {
			case <-over:
				return
			case <-tick.C:
			}
		}
	})
	if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	for frames := join.NewFrames(conn, join.MaxToServer); ; {
		order, err := frames.ToServer()
		if err != nil {
			t.Fatalf("no proof came: %v", err)
		}
		if order.Ledger != nil {
			believed("on the stream", order.Ledger)
			break
		}
	}
	certs, err := c.Renew(ctx, m.pair(t, answer.TLS), m.renewal(answer.TLS))
	if err != nil {
		t.Fatal(err)
	}
	believed("at a renewal", certs.Ledger)
}

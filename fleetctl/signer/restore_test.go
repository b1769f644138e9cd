package signer

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"mayfly/fleetctl/plan"
	"mayfly/fleetctl/rotate"
	"mayfly/inventory"
	"mayfly/inventory/store"
	"mayfly/inventory/store/sqlite"
	"mayfly/policies/bundle"
	"mayfly/rebuild/join"
	"mayfly/rebuild/ticket"
)

// serveLife has a machine join with a ticket, and its server serve.
func (f *fleet) serveLife(t *testing.T, m machineKeys) (tk ticket.Ticket, r join.Request, chain []byte) {
	t.Helper()
	tk, data, sig := f.begin(t)
	c, err := join.NewClient(&tk)
	if err != nil {
		t.Fatal(err)
	}
	r = m.request(data, sig)
	answer, err := c.Join(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.store.Move(t.Context(), testServer, tk.Epoch, inventory.Attesting, inventory.Baking, "test", time.Now()),
		f.store.Move(t.Context(), testServer, tk.Epoch, inventory.Baking, inventory.Serving, "test", time.Now())); err != nil {
		t.Fatal(err)
	}
	return tk, r, answer.TLS
}

// leave ends the serving life as a rotation does.
func (f *fleet) leave(t *testing.T, epoch uint64) {
	t.Helper()
	if err := f.store.Move(t.Context(), testServer, epoch, inventory.Serving, inventory.Draining, "test", time.Now()); err != nil {
		t.Fatal(err)
	}
}

// due are the servers that a plan takes out, and what it refuses.
func (f *fleet) due(t *testing.T, now time.Time) ([]plan.Step, plan.Refusals) {
	t.Helper()
	servers, err := f.store.Servers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b := &bundle.Bundle{Fleet: f.inv.Name, Version: 1, Inventory: f.inv, Policy: testPolicy(1)}
	s, h := rotate.Snapshot(b, 7, servers)
	p, refused := plan.Make(s, rotate.Rules(f.inv, b.Policy.Rotation, nil), h, now)
	return slices.DeleteFunc(p.Steps, func(x plan.Step) bool { return !x.Due }), refused
}

// early is so long before the deadline of an hour that nothing is due yet by the test's rules.
const early = 20 * time.Hour

// hear opens a life's stream, and waits until the store has its health.
func (f *fleet) hear(t *testing.T, tk ticket.Ticket, m machineKeys, chain []byte) {
	t.Helper()
	c, err := join.NewClient(&tk)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := c.Stream(t.Context(), m.pair(t, chain))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := join.WriteFrame(conn, join.FromServer{Health: &join.Health{BootID: m.bootID, Ready: true}}); err != nil {
		t.Fatal(err)
	}
	wait(t, "health in the store", func() bool {
		s, err := f.store.Server(t.Context(), testServer)
		return err == nil && !s.HealthAt.IsZero()
	})
}

// lose takes the store away and fills a new one with a backup, as `fleetctl restore` does.
func (f *fleet) lose(t *testing.T, backup []byte) store.TakenUp {
	t.Helper()
	for _, name := range []string{"store.db", "store.db-wal", "store.db-shm"} {
		if err := os.Remove(filepath.Join(f.dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	c, err := store.ReadContent(bytes.NewReader(backup))
	if err != nil {
		t.Fatal(err)
	}
	lives, err := Lives(f.dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	took := c.TakeUp(lives, time.Now())
	var b bytes.Buffer
	s, err := sqlite.Open(t.Context(), filepath.Join(f.dir, "store.db"))
	if err == nil {
		err = errors.Join(c.Write(&b), s.Import(t.Context(), &b), s.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	return took
}

// TestRestore: the store is lost after the server went on to a newer life than the backup's. What is restored lets that life in as it is,
// has nothing due that was not, and gives no ticket, no number of a life and no policy a second time.
func TestRestore(t *testing.T) {
	f := newFleet(t)
	m1, m2 := newMachine(t), newMachine(t)
	m2.bootID = "6f8c733c-17b7-4f19-a531-eed9d5e7bc00"
	var backup bytes.Buffer
	var used join.Request
	var tk1, tk2 ticket.Ticket
	var chain1, chain2 []byte
	var want store.Server
	unused := [32]byte{7}
	now := time.Now()
	t.Run("before", func(t *testing.T) {
		f.start(t)
		ctx := context.Background()
		tk1, used, chain1 = f.serveLife(t, m1)
		if err := errors.Join(f.store.PutTicket(ctx, testServer, 1, unused, now.Add(time.Hour)), f.store.ActUnder(ctx, 4), f.store.Export(ctx, &backup)); err != nil {
			t.Fatal(err)
		}
		f.leave(t, 1)
		tk2, _, chain2 = f.serveLife(t, m2)
		f.hear(t, tk2, m2, chain2)
		var err error
		if want, err = f.store.Server(ctx, testServer); err != nil {
			t.Fatal(err)
		}
		if steps, refused := f.due(t, now.Add(-early)); len(steps) > 0 || len(refused) > 0 {
			t.Fatalf("before: %v, %v", steps, refused)
		}
	})
	took := f.lose(t, backup.Bytes())
	if want := (store.TakenUp{Newer: []string{testServer}}); !reflect.DeepEqual(took, want) {
		t.Errorf("got %+v, want %+v", took, want)
	}
	t.Run("after", func(t *testing.T) {
		f.start(t)
		ctx := t.Context()
		if steps, refused := f.due(t, now.Add(-early)); len(steps) > 0 || len(refused) > 0 {
			t.Errorf("before it is heard of: %v, %v", steps, refused)
		}
		f.hear(t, tk2, m2, chain2)
		got, err := f.store.Server(ctx, testServer)
		if err != nil {
			t.Fatal(err)
		}
		if got.State != want.State || got.Epoch != want.Epoch || got.BootID != want.BootID || got.HostKey != want.HostKey || got.TLSKey != want.TLSKey || got.TunnelKey != want.TunnelKey ||
			got.Evidence != want.Evidence || want.Deadline.Sub(got.Deadline).Abs() > time.Minute || got.Revoked || got.Tainted {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
		if steps, refused := f.due(t, now.Add(-early)); len(steps) > 0 || len(refused) > 0 {
			t.Errorf("after: %v, %v", steps, refused)
		}
		if steps, refused := f.due(t, got.Deadline); len(steps) != 1 || len(refused) > 0 {
			t.Errorf("at its deadline: %v, %v, want one step", steps, refused)
		}
		c, err := join.NewClient(&tk1)
		if err != nil {
			t.Fatal(err)
		}
		if conn, err := c.Stream(ctx, m1.pair(t, chain1)); err == nil {
			if _, err := join.NewFrames(conn, join.MaxToServer).ToServer(); err == nil {
				t.Error("the life before has a stream")
			}
			conn.Close()
		}
		if _, err := c.Join(ctx, used); reason(err) != join.TicketUsed {
			t.Errorf("a used ticket: got %v, want %s", err, join.TicketUsed)
		}
		if err := f.store.UseTicket(ctx, unused, testServer, 1, now); !errors.Is(err, store.ErrTicketRevoked) {
			t.Errorf("an unused ticket: got %v, want %v", err, store.ErrTicketRevoked)
		}
		if got, err := f.store.Server(ctx, testServer); err != nil || got.Revoked {
			t.Errorf("the present life after that: %+v, %v", got, err)
		}
		if err := f.store.ActUnder(ctx, 3); !errors.Is(err, store.ErrPolicyOlder) {
			t.Errorf("an older policy: got %v, want %v", err, store.ErrPolicyOlder)
		}
		f.leave(t, 2)
		m3 := newMachine(t)
		if tk, _, _ := f.serveLife(t, m3); tk.Epoch != 3 {
			t.Errorf("the next life is %d, want 3", tk.Epoch)
		}
	})
}

// TestRestoreWithoutLives: where the signer's lives are lost as well, a newer life is refused, and the restore says so.
func TestRestoreWithoutLives(t *testing.T) {
	f := newFleet(t)
	m1, m2 := newMachine(t), newMachine(t)
	var backup bytes.Buffer
	var tk ticket.Ticket
	var chain []byte
	t.Run("before", func(t *testing.T) {
		f.start(t)
		f.serveLife(t, m1)
		if err := f.store.Export(t.Context(), &backup); err != nil {
			t.Fatal(err)
		}
		f.leave(t, 1)
		tk, _, chain = f.serveLife(t, m2)
	})
	if err := os.RemoveAll(filepath.Join(f.dir, keyDir, livesDir)); err != nil {
		t.Fatal(err)
	}
	if took := f.lose(t, backup.Bytes()); !took.Lost {
		t.Errorf("got %+v, want it to say that they are lost", took)
	}
	t.Run("after", func(t *testing.T) {
		f.start(t)
		c, err := join.NewClient(&tk)
		if err != nil {
			t.Fatal(err)
		}
		if conn, err := c.Stream(t.Context(), m2.pair(t, chain)); err == nil {
			if _, err := join.NewFrames(conn, join.MaxToServer).ToServer(); err == nil {
				t.Error("a life that nobody knows has a stream")
			}
			conn.Close()
		}
		f.leave(t, 1)
		m3 := newMachine(t)
		if tk, _, _ := f.serveLife(t, m3); tk.Epoch != 513 {
			t.Errorf("the next life is %d, want 513", tk.Epoch)
		}
	})
}

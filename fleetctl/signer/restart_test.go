package signer

import (
	"testing"
	"time"

	"mayfly/inventory"
	"mayfly/inventory/store"
	"mayfly/inventory/store/sqlite"
	"mayfly/rebuild/join"
	"mayfly/rebuild/order"
)

// orderFleet is a fleet whose server has no BMC.
func orderFleet(t *testing.T) *fleet {
	t.Helper()
	f := newFleet(t)
	for i := range f.inv.Servers {
		if f.inv.Servers[i].Name == testServer {
			f.inv.Servers[i].Power = inventory.Power{Driver: inventory.DriverOrder}
		}
	}
	f.sign(t, 2)
	return f
}

// TestRestart: an order is signed for the present life of a server without a BMC that does not serve, reaches its stream, and is for that life alone.
func TestRestart(t *testing.T) {
	f := orderFleet(t)
	f.start(t)
	ctx := t.Context()
	refused := func(what, server string, epoch uint64, want string) {
		t.Helper()
		if _, _, err := f.client.Restart(ctx, server, epoch); reason(err) != want {
			t.Errorf("%s: got %v, want %s", what, err, want)
		}
	}
	refused("no life yet", testServer, 1, join.LifeUnknown)
	tk, data, sig := f.begin(t)
	c, err := join.NewClient(&tk)
	if err != nil {
		t.Fatal(err)
	}
	m := newMachine(t)
	answer, err := c.Join(ctx, m.request(data, sig))
	if err != nil {
		t.Fatal(err)
	}
	refused("another life", testServer, tk.Epoch+1, join.LifeUnknown)
	refused("no such server", "se-9", tk.Epoch, join.ServerUnknown)
	for _, to := range []inventory.State{inventory.Baking, inventory.Serving} {
		s, err := f.store.Server(ctx, testServer)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.store.Move(ctx, testServer, tk.Epoch, s.State, to, "test", time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	refused("it serves", testServer, tk.Epoch, join.StillServing)
	if err := f.store.Move(ctx, testServer, tk.Epoch, inventory.Serving, inventory.Draining, "test", time.Now()); err != nil {
		t.Fatal(err)
	}
	file, signature, err := f.client.Restart(ctx, testServer, tk.Epoch)
	if err != nil {
		t.Fatal(err)
	}
	o, err := order.Open(f.trust, file, signature, testServer, tk.Epoch, time.Now())
	if err != nil || o.Do != order.Restart {
		t.Fatalf("got %+v, %v", o, err)
	}
	if err := f.store.OrderRestart(ctx, testServer, store.Restart{Epoch: tk.Epoch, File: file, Sig: signature, NotAfter: o.NotAfter}); err != nil {
		t.Fatal(err)
	}
	conn, err := c.Stream(ctx, m.pair(t, answer.TLS))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	frames := join.NewFrames(conn, join.MaxToServer)
	for {
		got, err := frames.ToServer()
		if err != nil {
			t.Fatal(err)
		}
		if got.Order != nil {
			if string(got.Order.File) != string(file) || string(got.Order.Sig) != string(signature) {
				t.Errorf("another order arrived: %q", got.Order.File)
			}
			break
		}
	}
	wait(t, "the order to be known as delivered", func() bool {
		all, err := f.store.Restarts(ctx)
		return err == nil && !all[testServer].Delivered.IsZero()
	})
}

// TestRestartRefuses: no order where a BMC is, for a life that an engineer is on, or too many.
func TestRestartRefuses(t *testing.T) {
	f := newFleet(t)
	s := offline(t, f)
	now := time.Now().UTC().Truncate(time.Second)
	if _, err := s.restart(restartRequest{testServer, 1}, now); reason(err) != join.NotInInventory {
		t.Errorf("a server with another driver: got %v", err)
	}
	f = orderFleet(t)
	s = offline(t, f)
	m := newMachine(t)
	signed, err := s.ticket(f.newTicket(t, 1), now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.admit(m.request(signed.Data, signed.Signature), now); err != nil {
		t.Fatal(err)
	}
	if _, err := s.restart(restartRequest{testServer, 1}, now); reason(err) != join.LifeUnknown {
		t.Errorf("no store: got %v", err)
	}
	db, err := sqlite.Open(t.Context(), f.dir+"/"+storeFile)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := db.Sync(t.Context(), f.inv, now); err != nil {
		t.Fatal(err)
	}
	for range restartsPerHour {
		if _, err := s.restart(restartRequest{testServer, 1}, now); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.restart(restartRequest{testServer, 1}, now); reason(err) != join.RateLimited {
		t.Errorf("too many: got %v", err)
	}
	if _, err := s.drained(drainedRequest{Server: testServer, Epoch: 1, Expires: now.Add(time.Minute)}, now); err != nil {
		t.Fatal(err)
	}
	if _, err := s.restart(restartRequest{testServer, 1}, now); reason(err) != join.LifeDrained {
		t.Errorf("an engineer is on it: got %v", err)
	}
}

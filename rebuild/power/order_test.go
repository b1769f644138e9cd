package power

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mayfly/inventory"
)

// fakeServer is a server that holds a stream open, or not, and obeys, or not.
type fakeServer struct {
	mu      sync.Mutex // guards the rest
	life    OrderLife
	ordered int
	absent  bool // no stream takes the order
	deaf    bool // it goes on
	refuse  error
}

func (f *fakeServer) Restart(_ context.Context, _ string, epoch uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ordered++
	if f.refuse == nil && !f.absent && epoch == f.life.Epoch {
		f.life.Delivered = time.Now()
	}
	return f.refuse
}

func (f *fakeServer) Life(context.Context, string) (OrderLife, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.deaf || f.life.Delivered.IsZero() {
		f.life.Heard = time.Now()
	}
	return f.life, nil
}

func newOrdered(t *testing.T, f *fakeServer) (*ordered, Place) {
	t.Helper()
	p, _ := testPlace(t)
	p.Orders = f
	d, err := Open(inventory.Server{Name: "se-1", Address: netip.MustParsePrefix("192.0.2.11/24"), Power: inventory.Power{Driver: inventory.DriverOrder}}, p)
	if err != nil {
		t.Fatal(err)
	}
	return d.(*ordered), p
}

func TestOrder(t *testing.T) {
	f := &fakeServer{life: OrderLife{Epoch: 1}}
	d, p := newOrdered(t, f)
	first, second := bootFor(t, 1), bootFor(t, 2)
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		status := func(want Status) {
			t.Helper()
			if got, err := d.Status(ctx); err != nil || got != want {
				t.Errorf("Status: %+v, %v; want %+v", got, err, want)
			}
		}
		if err := d.Off(ctx); err != nil {
			t.Fatal(err)
		}
		status(Status{Unknown: true})
		if err := errors.Join(d.SetBoot(ctx, first), d.On(ctx, first), d.On(ctx, first)); err != nil {
			t.Fatal(err)
		}
		status(Status{On: true, Epoch: 1, Unknown: true})
		if o, err := p.Offers.Find(netip.MustParseAddr("192.0.2.11"), "", time.Now()); err != nil || o.Epoch != 1 {
			t.Errorf("the server's address is offered %+v, %v", o, err)
		}
		// It has not joined: there is nothing to end, and nothing that could be told to end.
		if err := d.Leave(ctx, 1); Reason(err) != OrderNotDelivered {
			t.Errorf("Leave: %v", err)
		}
		f.life.BootID = "boot-1"
		if err := d.Joined(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Offers.Of("se-1", time.Now()); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("joined, and still offered: %v", err)
		}
		if err := d.Off(ctx); Reason(err) != OrderNotObeyed {
			t.Errorf("Off of a life that was not ordered: %v", err)
		}
		if err := d.SetBoot(ctx, second); Reason(err) != OnAlready {
			t.Errorf("SetBoot over a life: %v", err)
		}
		began := time.Now()
		if err := errors.Join(d.Leave(ctx, 1), d.Leave(ctx, 1)); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < usualOrderPace.silent || f.ordered != 1 {
			t.Errorf("left after %s by %d orders", took, f.ordered)
		}
		if err := errors.Join(d.Off(ctx), d.SetBoot(ctx, second), d.On(ctx, second)); err != nil {
			t.Fatal(err)
		}
		status(Status{On: true, Epoch: 2, Unknown: true})
		// The machine was not started anew: its kernel is the old one.
		f.life = OrderLife{Epoch: 2, BootID: "boot-1"}
		if err := d.Joined(ctx); Reason(err) != NotRestarted {
			t.Errorf("Joined in the same boot: %v", err)
		}
		f.life.BootID = "boot-2"
		if err := d.Joined(ctx); err != nil {
			t.Errorf("Joined: %v", err)
		}
	})
	if _, err := d.Console(t.Context()); !errors.Is(err, ErrNoConsole) {
		t.Errorf("Console: %v", err)
	}
}

func TestOrderFaults(t *testing.T) {
	for name, tt := range map[string]struct {
		server *fakeServer
		want   string
	}{
		"no stream":       {&fakeServer{absent: true}, OrderNotDelivered},
		"goes on":         {&fakeServer{deaf: true}, OrderNotObeyed},
		"signer refuses":  {&fakeServer{refuse: errors.New("still_serving")}, OrderNotDelivered},
		"another life is": {&fakeServer{life: OrderLife{Epoch: 8, BootID: "x"}}, OrderNotDelivered},
	} {
		f := tt.server
		if f.life.Epoch == 0 {
			f.life = OrderLife{Epoch: 7, BootID: "boot-7"}
		}
		d, _ := newOrdered(t, f)
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			err := d.Leave(t.Context(), 7)
			if Reason(err) != tt.want || time.Since(began) > 3*time.Minute {
				t.Errorf("%s: got %v after %s, want %s", name, err, time.Since(began), tt.want)
			}
		})
	}
}

// A life that nobody could end from here is over when its own end has passed, and not before; an order that expired is given again.
func TestOrderOver(t *testing.T) {
	f := &fakeServer{deaf: true}
	d, _ := newOrdered(t, f)
	synctest.Test(t, func(t *testing.T) {
		f.life = OrderLife{Epoch: 7, BootID: "boot-7", Ends: time.Now().Add(time.Hour)}
		if err := d.locked(t.Context(), "a test", func(l *orderedLife) error { l.Epoch, l.On = 7, true; return nil }); err != nil {
			t.Fatal(err)
		}
		if err := d.Joined(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := d.Leave(t.Context(), 7); Reason(err) != OrderNotObeyed {
			t.Fatalf("got %v, want %s", err, OrderNotObeyed)
		}
		f.mu.Lock()
		f.life.Delivered = time.Time{} // it has expired
		f.mu.Unlock()
		if err := d.Leave(t.Context(), 7); Reason(err) != OrderNotObeyed || f.ordered != 2 {
			t.Errorf("after the order expired: got %v, %d orders, want %s and a second order", err, f.ordered, OrderNotObeyed)
		}
		f.mu.Lock()
		f.life.Epoch, f.life.BootID, f.life.Ends = 8, "", time.Time{} // the next life was begun on paper
		f.mu.Unlock()
		if err := d.Off(t.Context()); Reason(err) != OrderNotObeyed {
			t.Errorf("before its end: got %v, want %s", err, OrderNotObeyed)
		}
		time.Sleep(2 * time.Hour)
		if err := d.Off(t.Context()); err != nil {
			t.Errorf("after its end: %v", err)
		}
	})
}

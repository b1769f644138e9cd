package rotate

import (
	"context"
	"time"

	"mayfly/inventory/store"
	"mayfly/rebuild/order"
	"mayfly/rebuild/power"
)

// Restarts is the way of orders to servers without a BMC: the signer signs them, the store keeps them, and `fleetctl serve` sends them.
type Restarts struct {
	Store  store.Store
	Signer RestartSigner
}

// RestartSigner signs that a life is to end.
type RestartSigner interface {
	Restart(ctx context.Context, server string, epoch uint64) (data, signature []byte, err error)
}

var _ power.Orders = Restarts{}

// Restart has an order signed and laid down.
func (r Restarts) Restart(ctx context.Context, server string, epoch uint64) error {
	asking, cancel := context.WithTimeout(ctx, ticketLimit)
	defer cancel()
	data, sig, err := r.Signer.Restart(asking, server, epoch)
	if err != nil {
		return err
	}
	o, err := order.Parse(data)
	if err != nil {
		return err
	}
	return r.Store.OrderRestart(ctx, server, store.Restart{Epoch: epoch, File: data, Sig: sig, NotAfter: o.NotAfter})
}

// Life reads what is known of the server.
func (r Restarts) Life(ctx context.Context, server string) (power.OrderLife, error) {
	s, err := r.Store.Server(ctx, server)
	if err != nil {
		return power.OrderLife{}, err
	}
	all, err := r.Store.Restarts(ctx)
	if err != nil {
		return power.OrderLife{}, err
	}
	l := power.OrderLife{Epoch: s.Epoch, BootID: s.BootID, Heard: s.HealthAt, Ends: s.Deadline}
	if o, ok := all[server]; ok && o.Epoch == s.Epoch && time.Now().Before(o.NotAfter) { // a server refuses one that has expired
		l.Delivered = o.Delivered
	}
	return l, nil
}

// leaveLimit is how long a server may take to obey an order to restart.
const leaveLimit = 3 * time.Minute

// tellToLeave has a machine that nobody here has power over end its life by itself, while its stream is still its own. What fails is told; the wipe
// that follows fails with its reason.
func (l *life) tellToLeave(ctx context.Context, s store.Server) error {
	leaver, ok := l.machine.(power.Leaver)
	if !ok || s.BootID == "" {
		return nil
	}
	return l.effect(ctx, s, "leave", func(ctx context.Context) error {
		limited, cancel := context.WithTimeout(ctx, leaveLimit)
		defer cancel()
		if err := leaver.Leave(limited, s.Epoch); err != nil {
			l.sayf("%s: %v", s.Name, err)
		}
		return ctx.Err()
	})
}

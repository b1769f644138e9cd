package power

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"mayfly/internal/durable"
	"mayfly/inventory"
)

// Orders is the way to a server without a BMC: an order that the signer signs, over the stream that the server holds open.
type Orders interface {
	// Restart has an order to restart signed for this life of a server, and laid down for delivery, unless one is.
	Restart(ctx context.Context, server string, epoch uint64) error
	// Life is what is known of the server's present life.
	Life(ctx context.Context, server string) (OrderLife, error)
}

// OrderLife is the present life of a server without a BMC.
type OrderLife struct {
	Epoch     uint64
	BootID    string
	Heard     time.Time // when it sent its last health
	Delivered time.Time // when an order to restart that is still in force was written to its stream; zero: there is none
	Ends      time.Time // when it ends by itself
}

// Leaver is a driver that has no hold on its machine from outside: the machine is told to end, while the life that is to end is still the
// present one and has its stream.
type Leaver interface {
	Leave(ctx context.Context, epoch uint64) error
}

// orderPace is how long the driver waits for what.
type orderPace struct {
	deliver time.Duration // until the order is on the server's stream
	silent  time.Duration // without health, after which the server counts as gone: several times join.HealthInterval
	obey    time.Duration // until it has to be
	look    time.Duration
}

var usualOrderPace = orderPace{deliver: 20 * time.Second, silent: 10 * time.Second, obey: 90 * time.Second, look: 500 * time.Millisecond}

// ordered is a server whose power nobody here has. Its firmware boots over the network from what is offered to its address. Off is never
// proved: what is known is that the order was delivered and that nothing was heard since. So Status says Unknown, and only a TPM's quote
// makes a life that begins like this more than claimed.
type ordered struct {
	server inventory.Server
	dir    string
	orders Orders
	offer  func(ctx context.Context, boot Boot) (nextBoot, error)
	take   func() error
	pace   orderPace
	log    *slog.Logger
}

var (
	_ Driver = (*ordered)(nil)
	_ Leaver = (*ordered)(nil)
)

// orderedLife is what the driver has begun, in bootFile.
type orderedLife struct {
	Epoch  uint64 `json:"epoch"`
	On     bool   `json:"on"`      // its boot is offered, or was taken
	Joined bool   `json:"joined"`  // so there is something to end
	Left   bool   `json:"left"`    // it was ordered to restart, and fell silent
	BootID string `json:"boot_id"` // of the life that left last

	Ends time.Time `json:"ends,omitzero"` // when the life that joined ends by itself
}

// Status is what was last asked for; nobody can read it back.
func (d *ordered) Status(context.Context) (Status, error) {
	l, err := d.load()
	s := Status{On: l.On, Unknown: true}
	if l.On {
		s.Epoch = l.Epoch
	}
	return s, d.wrap("reading what was begun", err)
}

// Leave orders the life to restart, and returns when the order was delivered and the server has fallen silent.
func (d *ordered) Leave(ctx context.Context, epoch uint64) error {
	return d.locked(ctx, "ordering a restart", func(l *orderedLife) error {
		if l.Left && l.Epoch == epoch {
			return nil
		}
		was, err := d.orders.Life(ctx, d.server.Name)
		if err != nil {
			return err
		}
		if was.Epoch != epoch {
			return failf(OrderNotDelivered, "life %d is over, life %d is the present one", epoch, was.Epoch)
		}
		if was.BootID == "" {
			return failf(OrderNotDelivered, "life %d never joined", epoch)
		}
		if was.Delivered.IsZero() {
			if err := d.orders.Restart(ctx, d.server.Name, epoch); err != nil {
				return failf(OrderNotDelivered, "%w", err)
			}
		}
		if was, err = d.await(ctx, epoch, d.pace.deliver, func(o OrderLife) bool { return !o.Delivered.IsZero() }); err != nil {
			return late(err, failf(OrderNotDelivered, "nothing took the order in %s: the server holds no stream open", d.pace.deliver))
		}
		_, err = d.await(ctx, epoch, d.pace.obey, func(o OrderLife) bool {
			last := o.Heard
			if o.Delivered.After(last) {
				last = o.Delivered
			}
			return time.Since(last) >= d.pace.silent
		})
		if err != nil {
			return late(err, failf(OrderNotObeyed, "it has the order, and says for %s that it lives", d.pace.obey))
		}
		l.Left, l.BootID, l.Epoch = true, was.BootID, epoch
		d.log.Info("machine ordered to restart", "server", d.server.Name, "epoch", epoch)
		return nil
	})
}

// errTooLong is what await returns when its time is over.
var errTooLong = errors.New("waited too long")

// late is the reason of a wait that took too long, and any other error as it is.
func late(err error, reason *Failure) error {
	if errors.Is(err, errTooLong) {
		return reason
	}
	return err
}

func (d *ordered) await(ctx context.Context, epoch uint64, limit time.Duration, ok func(OrderLife) bool) (OrderLife, error) {
	end := time.Now().Add(limit)
	for {
		o, err := d.orders.Life(ctx, d.server.Name)
		if err != nil {
			return o, err
		}
		if o.Epoch != epoch {
			return o, failf(OrderNotDelivered, "life %d is over, life %d is the present one", epoch, o.Epoch)
		}
		if ok(o) {
			return o, nil
		}
		if !time.Now().Before(end) {
			return o, errTooLong
		}
		if err := sleep(ctx, d.pace.look); err != nil {
			return o, err
		}
	}
}

// Off is nil where nothing has joined that could hold anything, or where it was ordered to restart and fell silent.
func (d *ordered) Off(ctx context.Context) error {
	return d.locked(ctx, "switching off", func(l *orderedLife) error {
		if l.Joined && !l.Left && !d.over(ctx, l) {
			return failf(OrderNotObeyed, "life %d has joined, and was not seen to restart: there is no BMC to end it", l.Epoch)
		}
		l.On, l.Joined, l.Left, l.Epoch, l.Ends = false, false, false, 0, time.Time{}
		return d.take()
	})
}

// endSlack is how much longer a machine may need to end by itself, by its own clock.
const endSlack = 2 * time.Minute

// over says whether the life that joined is past its own end, which the machine keeps by itself. The approvers may have let it go on.
func (d *ordered) over(ctx context.Context, l *orderedLife) bool {
	now, err := d.orders.Life(ctx, d.server.Name)
	if err != nil {
		return false
	}
	if now.Epoch == l.Epoch && now.Ends.After(l.Ends) {
		l.Ends = now.Ends
	}
	return !l.Ends.IsZero() && time.Since(l.Ends) > endSlack
}

// SetBoot offers the life's files to the server's address.
func (d *ordered) SetBoot(ctx context.Context, boot Boot) error {
	return d.locked(ctx, "setting the next boot", func(l *orderedLife) error { return d.prepare(ctx, l, boot) })
}

func (d *ordered) prepare(ctx context.Context, l *orderedLife, boot Boot) error {
	if boot.Epoch == 0 {
		return errors.New("no epoch")
	}
	if l.On {
		if l.Epoch == boot.Epoch {
			return nil
		}
		return failf(OnAlready, "life %d was begun; it has to be off before life %d", l.Epoch, boot.Epoch)
	}
	if _, err := d.offer(ctx, boot); err != nil {
		return err
	}
	l.Epoch = boot.Epoch
	return nil
}

// On has nothing to switch: the machine asks for what is offered, again and again, since it restarted.
func (d *ordered) On(ctx context.Context, boot Boot) error {
	return d.locked(ctx, "switching on", func(l *orderedLife) error {
		if l.On || l.Epoch != boot.Epoch {
			if err := d.prepare(ctx, l, boot); err != nil {
				return err
			}
		}
		l.On = true
		return nil
	})
}

// Joined withdraws the offer, and looks whether the machine did start anew: the kernel gives each boot an ID of its own.
func (d *ordered) Joined(ctx context.Context) error {
	return d.locked(ctx, "taking away what was booted from", func(l *orderedLife) error {
		now, err := d.orders.Life(ctx, d.server.Name)
		if err != nil {
			return errors.Join(err, d.take())
		}
		l.Joined, l.Ends = true, now.Ends
		if now.BootID != "" && now.BootID == l.BootID {
			return errors.Join(failf(NotRestarted, "life %d joined in boot %s, as the life before it", now.Epoch, now.BootID), d.take())
		}
		return d.take()
	})
}

// Console: nobody hears it.
func (d *ordered) Console(context.Context) ([]byte, error) { return nil, ErrNoConsole }

// locked does something to what was begun, and keeps it.
func (d *ordered) locked(ctx context.Context, doing string, do func(*orderedLife) error) error {
	unlock, err := lockMachine(ctx, d.dir)
	if err != nil {
		return d.wrap(doing, err)
	}
	defer unlock()
	l, err := d.load()
	if err != nil {
		return d.wrap(doing, err)
	}
	was := l
	err = do(&l)
	if l != was {
		data, merr := json.Marshal(l)
		if merr == nil {
			merr = durable.WriteFile(filepath.Join(d.dir, bootFile), append(data, '\n'), 0o600)
		}
		err = errors.Join(err, merr)
	}
	return d.wrap(doing, err)
}

func (d *ordered) load() (l orderedLife, err error) {
	data, err := durable.ReadRegular(filepath.Join(d.dir, bootFile), maxBegun)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, os.ErrNotExist) {
		return orderedLife{}, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &l)
	}
	return l, err
}

func (d *ordered) wrap(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("server %s: %s: %w", d.server.Name, doing, err)
}

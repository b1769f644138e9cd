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
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"mayfly/internal/durable"
	"mayfly/inventory"
)

// powerState is what a BMC says of the machine.
type powerState int

const (
	stateUnknown powerState = iota
	stateOff
	stateOn
	stateChanging // on its way to on or off
)

func (p powerState) String() string {
	return [...]string{"unknown", "off", "on", "changing"}[p]
}

// bmc switches one server by commands to something else, over which nobody here has power: a BMC, or a site's own program. No method
// repeats what it writes; that is remote's.
type bmc interface {
	// state reads whether the machine is on.
	state(ctx context.Context) (powerState, error)
	// switchTo commands it on or off. That it was taken proves nothing.
	switchTo(ctx context.Context, on bool) error
	// setBoot sets the next boot, and reads it back.
	setBoot(ctx context.Context, next nextBoot) error
	console(ctx context.Context) ([]byte, error)
	// joined takes away what the machine booted from. Asked twice it does nothing.
	joined(ctx context.Context) error
	// done ends an operation, of any number of the above.
	done(ctx context.Context)
}

// nextBoot is where a life's files are offered.
type nextBoot struct {
	epoch  uint64
	medium string // URL of a USB image with the unified kernel image and the ticket; "" if there is none
	script string // URL of an iPXE script
}

// pace is how long remote waits for what.
type pace struct {
	first, most time.Duration // between two looks at the power: from first, doubled up to most
	settle      time.Duration // until a command counts as not applied
	attempts    int           // of one command
	again       time.Duration // before what a busy BMC did not take is sent again, doubled each time
	fresh       time.Duration // for how long what was read back of the power is not asked again
}

var usualPace = pace{first: time.Second, most: 5 * time.Second, settle: 30 * time.Second, attempts: 3, again: 2 * time.Second, fresh: 8 * time.Second}

// remote is a driver over a bmc: it remembers durably which life it began, repeats with bounds, and believes only what it reads back.
type remote struct {
	server inventory.Server
	dir    string // of this machine
	bmc    bmc
	offer  func(ctx context.Context, boot Boot) (nextBoot, error)
	take   func() error // withdraws the offer
	pace   pace
	log    *slog.Logger

	mu   sync.Mutex // guards the rest
	seen Status
	at   time.Time // when that was read; zero: not since the last command
}

var (
	_ Driver = (*remote)(nil)
	_ Fencer = (*remote)(nil)
)

// begun is what a driver has begun, in bootFile.
type begun struct {
	Epoch uint64 `json:"epoch"`
	On    bool   `json:"on"` // it was commanded on
}

const maxBegun = 1 << 10

// Status reads the power back; which life it is, the driver remembers.
func (r *remote) Status(ctx context.Context) (Status, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.at.IsZero() && time.Since(r.at) < r.pace.fresh {
		return r.seen, nil
	}
	defer r.bmc.done(ctx)
	s, err := r.status(ctx)
	return s, r.wrap("reading the power", err)
}

func (r *remote) status(ctx context.Context) (Status, error) {
	state, err := r.settled(ctx)
	if err != nil {
		return Status{}, err
	}
	was, err := r.load()
	if err != nil {
		return Status{}, err
	}
	s := Status{On: state == stateOn}
	if s.On && was.On {
		s.Epoch = was.Epoch
	}
	r.seen, r.at = s, time.Now()
	return s, nil
}

// SetBoot offers the life's files and sets the next boot.
func (r *remote) SetBoot(ctx context.Context, boot Boot) error {
	return r.locked(ctx, "setting the next boot", func() error {
		if state, err := r.settled(ctx); err != nil {
			return err
		} else if state == stateOn {
			was, err := r.load()
			if err == nil && was.On && was.Epoch == boot.Epoch {
				return nil // it runs already
			}
			return errors.Join(err, failf(OnAlready, "the machine is on; it has to be off before its next boot is set"))
		}
		return r.prepare(ctx, boot)
	})
}

func (r *remote) prepare(ctx context.Context, boot Boot) error {
	if boot.Epoch == 0 {
		return errors.New("no epoch")
	}
	next, err := r.offer(ctx, boot)
	if err != nil {
		return err
	}
	if err := r.repeat(ctx, func() error { return r.bmc.setBoot(ctx, next) }); err != nil {
		return err
	}
	return r.save(begun{Epoch: boot.Epoch})
}

// On switches the machine on for a life whose boot is set.
func (r *remote) On(ctx context.Context, boot Boot) error {
	return r.locked(ctx, "switching on", func() error {
		state, err := r.settled(ctx)
		if err != nil {
			return err
		}
		was, err := r.load()
		if err != nil {
			return err
		}
		if state == stateOn {
			if was.On && was.Epoch == boot.Epoch {
				return nil
			}
			return failf(OnAlready, "the machine is on, in life %d as far as is known; it has to be off before life %d", was.Epoch, boot.Epoch)
		}
		if was.Epoch != boot.Epoch || was.On {
			if err := r.prepare(ctx, boot); err != nil {
				return err
			}
		}
		// First the note, then the deed: a driver that dies between the two finds a machine that is off.
		if err := r.save(begun{Epoch: boot.Epoch, On: true}); err != nil {
			return err
		}
		if err := r.drive(ctx, true); err != nil {
			return err
		}
		r.log.Info("machine on", "server", r.server.Name, "epoch", boot.Epoch)
		return nil
	})
}

// Off commands the machine off even if it is said to be: a BMC that is wrong about it would leave a life's memory alive.
func (r *remote) Off(ctx context.Context) error { return r.OffThrough(ctx, newest) }

// OffThrough is Off of a life that is no newer than this one, by what drivers with this directory have begun.
func (r *remote) OffThrough(ctx context.Context, epoch uint64) error {
	return r.locked(ctx, "switching off", func() error {
		was, err := r.load()
		if err == nil && was.On {
			err = fence(was.Epoch, epoch)
		}
		if err != nil {
			return err
		}
		if err := r.drive(ctx, false); err != nil {
			return err
		}
		if err := errors.Join(r.remove(), r.take()); err != nil {
			return err
		}
		r.log.Info("machine off", "server", r.server.Name, "epoch", was.Epoch)
		return nil
	})
}

// Console returns what the machine said last.
func (r *remote) Console(ctx context.Context) ([]byte, error) {
	data, err := r.bmc.console(ctx)
	if len(data) > MaxConsole {
		data = data[len(data)-MaxConsole:]
	}
	if err == nil || errors.Is(err, ErrNoConsole) {
		return data, err
	}
	return data, r.wrap("reading the console", err)
}

// Joined withdraws the offer, and has the BMC let go of it.
func (r *remote) Joined(ctx context.Context) error {
	return r.locked(ctx, "taking away what was booted from", func() error {
		return errors.Join(r.take(), r.repeat(ctx, func() error { return r.bmc.joined(ctx) }))
	})
}

// drive commands the machine on or off until it is read back so. What a command answered is told only if none worked.
func (r *remote) drive(ctx context.Context, on bool) error {
	want := stateOff
	if on {
		want = stateOn
	}
	var said error
	pause := r.pace.again
	for attempt := range r.pace.attempts {
		if attempt > 0 {
			if err := sleep(ctx, pause); err != nil {
				return errors.Join(said, err)
			}
			pause *= 2
		}
		before, err := r.settled(ctx)
		if err != nil {
			return err
		}
		if before == want && (on || attempt > 0) {
			return nil // an answer was lost, and the command was not
		}
		said = r.bmc.switchTo(ctx, on)
		if before == want {
			if said == nil || Reason(said) == Refused {
				said = nil // "it is off already" is as good
			} else if !passing(said) {
				return said
			}
		} else if said != nil && !passing(said) && Reason(said) != Frozen {
			return said
		}
		got, err := r.await(ctx, want)
		if err != nil {
			return errors.Join(said, err)
		}
		if got == want && said == nil {
			return nil
		}
		if said == nil {
			said = failf(NotApplied, "it took the command %d times, and the machine is still %s", attempt+1, got)
		}
	}
	return said
}

// await looks at the power until it is as wanted, or the time of one command is over.
func (r *remote) await(ctx context.Context, want powerState) (powerState, error) {
	end := time.Now().Add(r.pace.settle)
	pause := r.pace.first
	for {
		got, err := r.read(ctx)
		if err != nil || got == want || !time.Now().Before(end) {
			return got, err
		}
		if err := sleep(ctx, pause); err != nil {
			return got, failf(NotApplied, "it took the command, and the machine is still %s: %w", got, err)
		}
		pause = min(2*pause, r.pace.most)
	}
}

// settled reads the power, and waits for one that is changing.
func (r *remote) settled(ctx context.Context) (powerState, error) {
	end := time.Now().Add(r.pace.settle)
	for {
		got, err := r.read(ctx)
		switch {
		case err != nil:
			return got, err
		case got == stateOn || got == stateOff:
			return got, nil
		case !time.Now().Before(end):
			return got, failf(StateUnknown, "the BMC says of the power: %s", got)
		}
		if err := sleep(ctx, r.pace.first); err != nil {
			return got, failf(StateUnknown, "the BMC says of the power: %s: %w", got, err)
		}
	}
}

func (r *remote) read(ctx context.Context) (got powerState, err error) {
	err = r.repeat(ctx, func() error { got, err = r.bmc.state(ctx); return err })
	return got, err
}

// repeat does again, with bounds, what a busy BMC did not take or a cut connection did not bring. Only for what may be done twice.
func (r *remote) repeat(ctx context.Context, do func() error) error {
	pause := r.pace.again
	for attempt := 1; ; attempt++ {
		err := do()
		if err == nil || !passing(err) || attempt >= r.pace.attempts {
			return err
		}
		if ended := sleep(ctx, pause); ended != nil {
			return err
		}
		pause *= 2
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// locked does what writes, while no other driver of this machine does.
func (r *remote) locked(ctx context.Context, doing string, do func() error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.at = time.Time{}
	unlock, err := lockMachine(ctx, r.dir)
	if err != nil {
		return r.wrap(doing, err)
	}
	defer unlock()
	defer r.bmc.done(ctx)
	return r.wrap(doing, do())
}

func (r *remote) load() (begun, error) {
	data, err := durable.ReadRegular(filepath.Join(r.dir, bootFile), maxBegun)
	if errors.Is(err, fs.ErrNotExist) {
		return begun{}, nil
	}
	var b begun
	if err == nil {
		err = json.Unmarshal(data, &b)
	}
	return b, err
}

func (r *remote) save(b begun) error {
	data, err := json.Marshal(b)
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(r.dir, bootFile), append(data, '\n'), 0o600)
}

func (r *remote) remove() error {
	err := os.Remove(filepath.Join(r.dir, bootFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (r *remote) wrap(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("server %s: %s: %w", r.server.Name, doing, err)
}

// lockMachine keeps other drivers of a machine out until unlock is called or this process ends.
func lockMachine(ctx context.Context, dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(fmt.Errorf("locking %s: %w", dir, err), f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("waiting for another driver of this machine: %w", ctx.Err()), f.Close())
		case <-time.After(pollInterval):
		}
	}
}

package rotate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"mayfly/fleetctl/plan"
	"mayfly/inventory"
	"mayfly/inventory/store"
	"mayfly/rebuild/power"
)

// Implementation constants.
const (
	drainGrace   = 5 * time.Second // beyond the bound, for the server's last word
	offLimit     = 5 * time.Minute // power off and read back: a BMC may want to be asked three times
	statusLimit  = time.Minute
	consoleLines = 5
	maxCause     = 2048
	maxStale     = 100 // how often a life looks again because somebody else moved its server
)

// life carries one server from where it is to serving or quarantined. One goroutine owns it.
type life struct {
	*Runner
	server  inventory.Server
	machine Machine
	rules   plan.Rules
	began   time.Time
	booted  time.Time // when this process saw the present boot begin
	joined  time.Duration
	looked  time.Time // when the machine was last asked

	unproved bool // nobody can read back whether the machine is off
}

// outcome is how a life ended; err only when the store, not the server, failed, or ctx ended.
type outcome struct {
	Rebuilt
	err error
}

func (r *Runner) life(name string, rules plan.Rules) (*life, error) {
	s, ok := r.Bundle.Inventory.RebuiltServer(name)
	if !ok {
		return nil, fmt.Errorf("server %q is in the store but not in the signed inventory", name)
	}
	m, err := r.Machines.Machine(s)
	if err != nil {
		return nil, fmt.Errorf("opening the power driver of %s: %w", name, err)
	}
	return &life{Runner: r, server: s, machine: m, rules: rules, began: time.Now()}, nil
}

// leave makes the first move, if the fleet still allows it.
func (l *life) leave(ctx context.Context, step plan.Step, check func([]store.Server) error) (bool, error) {
	to := inventory.Wiping
	if step.State == inventory.Serving {
		to = inventory.Draining
	}
	cause := fmt.Sprintf("run %d: %s", l.run, step.Reason)
	l.at("leave")
	var err error
	if to == inventory.Draining {
		err = l.Store.MoveChecked(ctx, step.Server, step.Epoch, step.State, to, cause, time.Now(), check)
	} else {
		_, err = l.Store.BeginLife(ctx, step.Server, step.Epoch, step.State, cause, time.Now(), check)
	}
	if errors.Is(err, errNotNow) {
		return false, nil
	}
	l.at("left")
	if err == nil {
		l.sayf("%s: %s, life %d ends (%s: %s)", step.Server, to, step.Epoch, step.Reason, step.Why)
	}
	return err == nil, err
}

// live goes from state to state. Each state's method returns nil when it has moved the server on.
func (l *life) live(ctx context.Context) outcome {
	stale := 0
	for {
		s, err := l.Store.Server(ctx, l.server.Name)
		if err != nil {
			return outcome{Rebuilt{Name: l.server.Name}, err}
		}
		switch s.State {
		case inventory.Draining:
			err = l.drain(ctx, s)
		case inventory.Wiping:
			err = l.wipe(ctx, s)
		case inventory.Booting:
			err = l.boot(ctx, s)
		case inventory.Attesting:
			err = l.attest(ctx, s)
		case inventory.Baking:
			err = l.bake(ctx, s)
		default:
			return outcome{Rebuilt{Name: s.Name, State: s.State, Epoch: s.Epoch, Release: s.Release,
				Seconds: time.Since(l.began).Seconds(), Boot: l.joined.Seconds(), Cause: s.Cause}, nil}
		}
		if f := (*failure)(nil); errors.As(err, &f) {
			err = l.fail(ctx, s, f)
		}
		if errors.Is(err, store.ErrStale) && ctx.Err() == nil {
			if stale++; stale <= maxStale {
				continue // a join or a report came between reading and moving: look again
			}
		}
		if err != nil {
			return outcome{Rebuilt{Name: l.server.Name}, err}
		}
	}
}

// failure is the server's fault: it is tried again or quarantined.
type failure struct{ reason, detail string }

func (f *failure) Error() string { return f.reason + ": " + f.detail }

// drain orders the server to let its users leave and waits for its word, with the policy's bound.
func (l *life) drain(ctx context.Context, s store.Server) error {
	now := time.Now()
	gone := s.Revoked || slices.Contains(l.rules.Lost, s.Name) || plan.Passed(s.Deadline, now)
	if !gone {
		err := l.effect(ctx, s, "drain", func(ctx context.Context) error {
			return l.Store.OrderDrain(ctx, s.Name, s.Epoch, l.rules.DrainLimit)
		})
		if err != nil {
			return err
		}
		end := s.Since.Add(l.rules.DrainLimit + drainGrace)
		s, err = l.wait(ctx, s, func(s store.Server) (bool, error) { return s.Drained || s.Revoked || !time.Now().Before(end), nil })
		if err != nil {
			return err
		}
	}
	how := "drained"
	switch {
	case s.Revoked:
		how = "its life is revoked, nothing to drain"
	case gone:
		how = "gone, nothing to drain"
	case !s.Drained:
		how = "the drain's bound passed without an answer"
	case s.DrainForced:
		how = "the drain's bound passed, some were cut off"
	}
	return l.next(ctx, s, how)
}

// next ends this life and begins the next one with its wipe.
func (l *life) next(ctx context.Context, s store.Server, cause string) error {
	if err := l.tellToLeave(ctx, s); err != nil {
		return err
	}
	l.at("next")
	epoch, err := l.Store.BeginLife(ctx, s.Name, s.Epoch, s.State, cause, time.Now(), nil)
	if err != nil {
		return err
	}
	l.at("next-begun")
	l.booted = time.Time{}
	l.sayf("%s: wiping (%s), life %d begins", s.Name, cause, epoch)
	return nil
}

// wipe switches the machine off and reads it back as off: what was in RAM is gone.
func (l *life) wipe(ctx context.Context, s store.Server) error {
	err := l.effect(ctx, s, "off", func(ctx context.Context) error { return l.off(ctx) })
	if err != nil {
		return err
	}
	if l.unproved { // the ledger is told of an end that was read back, and this one was not
		return l.move(ctx, s, inventory.Booting, "ordered to restart, and silent since; without a BMC nothing can be read back")
	}
	if err := l.over(ctx, s, s.Epoch-1); err != nil {
		return err
	}
	return l.move(ctx, s, inventory.Booting, "off, read back")
}

func (l *life) off(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, offLimit)
	defer cancel()
	if err := l.machine.Off(ctx); err != nil {
		return powerFailure("power_off", err)
	}
	got, err := l.machine.Status(ctx)
	if err != nil {
		return powerFailure("power_off", fmt.Errorf("reading back: %w", err))
	}
	l.unproved = got.Unknown
	if got.On && !got.Unknown {
		return &failure{"power_off", fmt.Sprintf("read back as on, in epoch %d", got.Epoch)}
	}
	return nil
}

func (l *life) status(ctx context.Context) (power.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, statusLimit)
	defer cancel()
	got, err := l.machine.Status(ctx)
	if err != nil {
		return got, powerFailure("power_status", err)
	}
	return got, nil
}

// powerFailure has the driver's own reason code, where it gave one.
func powerFailure(reason string, err error) *failure {
	f, ok := errors.AsType[*power.Failure](err)
	if !ok {
		return &failure{reason, err.Error()}
	}
	return &failure{f.Reason, strings.Replace(err.Error(), f.Reason+": ", "", 1)}
}

// fail tries again with the next life, or quarantines.
func (l *life) fail(ctx context.Context, s store.Server, f *failure) error {
	if ctx.Err() != nil {
		return ctx.Err() // the effect was cut short by our own end, not by the server
	}
	// The state may have moved while the failure was found, by a join that came just then.
	s, err := l.Store.Server(ctx, s.Name)
	if err != nil {
		return err
	}
	first, n, err := l.failures(ctx, s)
	if err != nil {
		return err
	}
	// A process that died after this record finds the same failure again: one attempt counts once.
	if n.ofLife == 0 || s.State == inventory.Wiping {
		if err := l.journal(ctx, s, "attempt", Failed, f.Error()); err != nil {
			return err
		}
		n.all++
		if first == "" {
			first = f.Error()
		}
	}
	if n.all <= l.rules.Retries {
		l.sayf("%s: failed (%s), attempt %d of %d", s.Name, f, n.all, l.rules.Retries+1)
		if s.State == inventory.Wiping {
			return nil // the wipe itself is tried again
		}
		return l.next(ctx, s, f.Error())
	}
	cause := first
	if tail := console(ctx, l.machine, consoleLines); len(tail) > 0 {
		cause += " (console: " + strings.Join(tail, " | ") + ")"
	}
	if err := l.effect(ctx, s, "off", func(ctx context.Context) error { return l.off(ctx) }); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		cause += "; and it could not be switched off: " + err.Error()
	} else if err := l.over(ctx, s, s.Epoch); err != nil {
		return err
	}
	if len(cause) > maxCause {
		cause = strings.ToValidUTF8(cause[:maxCause], "")
	}
	return l.move(ctx, s, inventory.Quarantined, cause)
}

func (l *life) move(ctx context.Context, s store.Server, to inventory.State, cause string) error {
	l.at("move " + string(to))
	if err := l.Store.Move(ctx, s.Name, s.Epoch, s.State, to, cause, time.Now()); err != nil {
		return err
	}
	l.at("moved " + string(to))
	l.sayf("%s: %s (%s)", s.Name, to, cause)
	return nil
}

// wait reads the store until ok says so, or an error.
func (l *life) wait(ctx context.Context, s store.Server, ok func(store.Server) (bool, error)) (store.Server, error) {
	tick := time.NewTicker(l.Poll)
	defer tick.Stop()
	for {
		now, err := l.Store.Server(ctx, s.Name)
		if err != nil {
			return now, err
		}
		if now.Epoch != s.Epoch {
			return now, fmt.Errorf("%s is in life %d, not %d: another process moved it", s.Name, now.Epoch, s.Epoch)
		}
		if good, err := ok(now); good || err != nil {
			return now, err
		}
		select {
		case <-ctx.Done():
			return now, ctx.Err()
		case <-tick.C:
		}
	}
}

// Bounds of what is quoted from a server's health.
const (
	maxService     = 32
	maxServiceText = 200
)

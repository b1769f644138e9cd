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
	Store   store.Store // fenced by the claim
	hold    *hold
	watch   *watch // nil before it is carried
	server  inventory.Server
	machine Machine
	rules   plan.Rules
	began   time.Time
	booted  time.Time // when this process saw the present boot begin
	joined  time.Duration
	end     time.Time // when the present boot has to be ready
	looked  time.Time // when the machine was last asked
	known   facts     // of the present life
	said    string    // by the effect that runs, for its record
	unread  bool      // the machine could not be asked the last time

	unproved bool // nobody can read back whether the machine is off
}

// outcome is how a life ended; err only when the store, not the server, failed, or ctx ended.
type outcome struct {
	Rebuilt
	err  error
	lost bool // the claim is over: another process carries the server on
}

func (r *Runner) life(name string, rules plan.Rules, h *hold) (*life, error) {
	s, ok := r.Bundle.Inventory.RebuiltServer(name)
	if !ok {
		return nil, fmt.Errorf("server %q is in the store but not in the signed inventory", name)
	}
	m, err := r.Machines.Machine(s)
	if err != nil {
		return nil, fmt.Errorf("opening the power driver of %s: %w", name, err)
	}
	return &life{Runner: r, Store: h.fenced(), hold: h, server: s, machine: m, rules: rules, began: time.Now()}, nil
}

// leave makes the first move, if the fleet still allows it.
func (l *life) leave(ctx context.Context, step plan.Step, b *batch) (bool, error) {
	to := inventory.Wiping
	if step.State == inventory.Serving {
		to = inventory.Draining
	}
	cause := fmt.Sprintf("run %d: %s", l.run, step.Reason)
	s := store.Server{Name: step.Server, Epoch: step.Epoch}
	if standsBy(step) {
		if err := l.journal(ctx, s, stepStandby, Intent, ""); err != nil {
			return false, err
		}
	}
	l.at("leave")
	var err error
	if to == inventory.Draining {
		err = l.Store.MoveChecked(ctx, step.Server, step.Epoch, step.State, to, cause, time.Now(), b.check(step))
	} else {
		_, err = l.Store.BeginLife(ctx, step.Server, step.Epoch, step.State, cause, time.Now(), b.check(step))
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
			return outcome{Rebuilt: Rebuilt{Name: l.server.Name}, err: err}
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
			return l.arrived(ctx, s)
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
			return outcome{Rebuilt: Rebuilt{Name: l.server.Name}, err: err}
		}
	}
}

// arrived ends the rotation of a server that serves, is quarantined or stands by.
func (l *life) arrived(ctx context.Context, s store.Server) outcome {
	o := store.Outcome{Server: s.Name, Epoch: s.Epoch, Release: s.Release}
	if s.State == inventory.Serving || s.State == inventory.Quarantined {
		var err error
		if o, err = l.endRotation(context.WithoutCancel(ctx), l.Store, s); err != nil {
			return outcome{Rebuilt: Rebuilt{Name: s.Name}, err: err}
		}
	}
	b := rebuilt(s, o)
	b.Seconds, b.Boot = time.Since(l.began).Seconds(), l.joined.Seconds()
	return outcome{Rebuilt: b}
}

// failure is the server's fault: it is tried again or quarantined.
type failure struct {
	check  Check // at which it failed
	reason string
	detail string
}

func (f *failure) Error() string { return f.reason + ": " + f.detail }

// drain orders the server to let its users leave and waits for its word, with the policy's bound.
func (l *life) drain(ctx context.Context, s store.Server) error {
	now := time.Now()
	gone := s.Revoked || slices.Contains(l.rules.Lost, s.Name) && !heard(s, now) || plan.Passed(s.Deadline, now)
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
	if err := l.ends(ctx, s); err != nil {
		return err
	}
	l.at("next")
	epoch, err := l.Store.BeginLife(ctx, s.Name, s.Epoch, s.State, cause, time.Now(), nil)
	if err != nil {
		return err
	}
	l.at("next-begun")
	l.booted, l.end, l.known = time.Time{}, time.Time{}, facts{}
	l.sayf("%s: wiping (%s), life %d begins", s.Name, cause, epoch)
	return nil
}

// wipe switches the machine off and reads it back as off: what was in RAM is gone.
func (l *life) wipe(ctx context.Context, s store.Server) error {
	err := l.effect(ctx, s, "off", func(ctx context.Context) error { return l.off(ctx, s.Epoch-1) })
	if err != nil {
		return err
	}
	if l.unproved { // the ledger is told of an end that was read back, and this one was not
		return l.move(ctx, s, inventory.Booting, "ordered to restart, and silent since; without a BMC nothing can be read back")
	}
	if err := l.over(ctx, s, s.Epoch-1); err != nil {
		return err
	}
	last := s
	last.Epoch--
	if standby, _, err := l.begun(ctx, last, stepStandby); err != nil {
		return err
	} else if standby {
		return l.move(ctx, s, inventory.Standby, "off, read back: a spare that is not needed")
	}
	return l.move(ctx, s, inventory.Booting, "off, read back")
}

// off ends the machine, in this life or an earlier one, and reads that back. A process that was stopped right before it and goes on late finds a newer life, which
// drivers that know whose life runs leave alone.
func (l *life) off(ctx context.Context, through uint64) error {
	ctx, cancel := context.WithTimeout(ctx, offLimit)
	defer cancel()
	end := l.machine.Off
	if f, ok := l.machine.(power.Fencer); ok {
		end = func(ctx context.Context) error { return f.OffThrough(ctx, through) }
	}
	if err := end(ctx); err != nil {
		return powerFailure("power_off", err)
	}
	got, err := l.machine.Status(ctx)
	if err != nil {
		return powerFailure("power_off", fmt.Errorf("reading back: %w", err))
	}
	l.unproved = got.Unknown
	if got.On && !got.Unknown {
		return &failure{CheckPower, "power_off", fmt.Sprintf("read back as on, in epoch %d", got.Epoch)}
	}
	if !got.Unknown {
		l.said = readBackOff
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
		return &failure{CheckPower, reason, err.Error()}
	}
	return &failure{CheckPower, f.Reason, strings.Replace(err.Error(), f.Reason+": ", "", 1)}
}

// fail tries again with the next life, or quarantines.
func (l *life) fail(ctx context.Context, s store.Server, f *failure) error {
	if ctx.Err() != nil || l.hold.lost() {
		return errors.Join(ctx.Err(), l.hold.ctx.Err()) // the effect was cut short by our own end, not by the server
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
		why := l.judged(f)
		if err := l.journal(ctx, s, "attempt", Failed, why); err != nil {
			return err
		}
		n.all++
		if first == "" {
			first = why
		}
	}
	if n.all <= l.rules.Retries {
		l.sayf("%s: failed (%s), attempt %d of %d", s.Name, f, n.all, l.rules.Retries+1)
		if s.State == inventory.Wiping {
			return l.rest(ctx, n.all) // the wipe itself is tried again
		}
		return l.next(ctx, s, f.Error())
	}
	cause := first
	if tail := console(ctx, l.machine, consoleLines); len(tail) > 0 {
		cause += " (console: " + strings.Join(tail, " | ") + ")"
	}
	if err := l.effect(ctx, s, "off", func(ctx context.Context) error { return l.off(ctx, s.Epoch) }); err != nil {
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

// judged is a failure as the health gate sees it: the first cause, and what was not reached for it.
func (l *life) judged(f *failure) string { return judge(l.known, f.check, f.Error()).String() }

// wait looks at the server, now and with each reading of the store that begins later, until ok says so, or an error.
func (l *life) wait(ctx context.Context, s store.Server, ok func(store.Server) (bool, error)) (store.Server, error) {
	number := l.watch.number()
	now, err := l.Store.Server(ctx, s.Name)
	for {
		if err != nil {
			return now, err
		}
		if now.Epoch != s.Epoch {
			return now, fmt.Errorf("%s is in life %d, not %d: another process moved it", s.Name, now.Epoch, s.Epoch)
		}
		if good, err := ok(now); good || err != nil {
			return now, err
		}
		for {
			next, read, changed, e := l.watch.after(number, s.Name)
			if read || e != nil {
				number, now, err = l.watch.readNumber(), next, e
				break
			}
			select {
			case <-ctx.Done():
				return now, context.Cause(ctx)
			case <-changed:
			}
		}
	}
}

// Bounds of what is quoted from a server's health.
const (
	maxService     = 32
	maxServiceText = 200
)

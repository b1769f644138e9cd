package rotate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"mayfly/fleetctl/plan"
	"mayfly/inventory"
	"mayfly/inventory/store"
	"mayfly/rebuild/join"
	"mayfly/rebuild/power"
	"mayfly/rebuild/ticket"
	"mayfly/rebuild/ticket/issue"
)

// Implementation constants of a boot.
const (
	onLimit       = 5 * time.Minute  // until its next boot is set and the machine runs
	ticketLimit   = 15 * time.Second // the signer's answer
	probeLimit    = 10 * time.Second
	ticketSlack   = time.Minute     // a ticket lives this much longer than boot_limit: never longer than ticket.MaxWindow
	readBackEvery = 2 * time.Second // how often a booting machine is asked whether it still runs
	tidyLimit     = time.Minute
	maxWatchers   = 3                     // processes that give one boot the whole boot_limit
	lookPolls     = 4                     // a machine is not asked more often than every so many polls
	lookEach      = 10 * time.Millisecond // nor more often than this for each server that is carried
)

// boot hands the machine its ticket and switches it on, once for an epoch, and waits until it has joined.
func (l *life) boot(ctx context.Context, s store.Server) error {
	got, err := l.surely(ctx)
	if err != nil {
		return err
	}
	tried, done, err := l.begun(ctx, s, "boot")
	switch {
	case err != nil:
		return err
	case got.On && got.Epoch == s.Epoch:
		// It runs: begun by us, or by the process before us.
	case got.On && got.Epoch == 0 && done:
		// It runs, and which life cannot be told from here: another controller's driver has the note. The journal says that it was booted; its join,
		// which nothing but this life's ticket opens, says the rest.
	case got.On && got.Epoch == 0 && tried:
		return l.next(ctx, s, "interrupted while booting")
	case got.On:
		return &failure{CheckPower, "power_on", fmt.Sprintf("the machine runs in epoch %d, not %d", got.Epoch, s.Epoch)}
	case done:
		return l.ended(ctx, s)
	case tried:
		// Nobody can know whether it ran for a moment. An epoch is booted once: take the next one.
		return l.next(ctx, s, "interrupted while booting")
	default:
		if err := l.effect(ctx, s, "boot", func(ctx context.Context) error { return l.on(ctx, s) }); err != nil {
			return err
		}
		l.sayf("%s: booting life %d", s.Name, s.Epoch)
	}
	l.booted, l.looked = time.Now(), time.Now()
	end, err := l.bootEnd(ctx, s)
	if err != nil {
		return err
	}
	l.known.on, l.known.power = true, fmt.Sprintf("on in life %d", s.Epoch)
	_, err = l.wait(ctx, s, func(s store.Server) (bool, error) {
		if s.State != inventory.Booting {
			l.joined = time.Since(l.booted)
			l.sayf("%s: joined after %.1f s", s.Name, l.joined.Seconds())
			return true, l.tidy(ctx, s)
		}
		return false, l.sick(ctx, s, CheckBoot, end, l.late("has not joined"))
	})
	return err
}

// tidy has what the life booted from taken away: its ticket is used, and the next boot shall not be this one. What fails is said, and no
// fault of the life's: the offer ends with the ticket, and the next SetBoot finds the medium.
func (l *life) tidy(ctx context.Context, s store.Server) error {
	ctx, cancel := context.WithTimeout(ctx, tidyLimit)
	defer cancel()
	err := l.machine.Joined(ctx)
	switch {
	case power.Reason(err) == power.NotRestarted:
		return powerFailure("power_on", err)
	case err != nil && ctx.Err() == nil:
		l.sayf("%s: what it booted from could not be taken away: %v", s.Name, err)
	}
	return nil
}

// on gives the machine a fresh ticket, which revokes older unused ones, and boots it.
func (l *life) on(ctx context.Context, s store.Server) error {
	rel, err := l.release(ctx, s.Name)
	if err != nil {
		return err
	}
	now := time.Now()
	notAfter := now.Add(l.rules.BootLimit + ticketSlack)
	t, err := issue.New(l.Bundle.Inventory, s.Name, issue.Life{Epoch: s.Epoch, Release: rel.Digest, Path: rel.Path,
		CA: l.CA, NotAfter: notAfter, MaxAge: maxAge(l.rules, rel), Made: now,
		TPM: l.Bundle.Policy.Image.RequiresTPM(), Disks: l.Bundle.Policy.Image.OnDisks()})
	if err != nil {
		return err
	}
	asking, cancel := context.WithTimeout(ctx, ticketLimit)
	data, sig, err := l.Tickets.Ticket(asking, t)
	cancel()
	if err != nil {
		// No fault of the server's: the run stops, and goes on when the signer does.
		return fmt.Errorf("having the ticket of %s signed: %w", s.Name, err)
	}
	l.at("put-ticket")
	if err := l.Store.SetRelease(ctx, s.Name, s.Epoch, strconv.FormatUint(rel.Statement.Version, 10)); err != nil {
		return err
	}
	if err := l.Store.PutTicket(ctx, s.Name, s.Epoch, ticket.Hash(data), t.NotAfter); err != nil {
		return err
	}
	l.at("ticket-put")
	if err := l.hold.sure(); err != nil {
		return err
	}
	ctx, cancel = context.WithTimeout(ctx, onLimit)
	defer cancel()
	signed := rel.Statement
	boot := power.Boot{Epoch: s.Epoch, Trust: l.Trust, Ticket: data, TicketSig: sig, Cmdline: signed.Cmdline, NotAfter: t.NotAfter,
		Kernel: power.File{Path: rel.Kernel, Signed: signed.Kernel}, Stub: power.File{Path: rel.Stub, Signed: signed.Stub},
		Root: power.File{Path: rel.Root, Signed: signed.Root}, Statement: rel.Data}
	if signed.UKI != nil {
		boot.UKI = power.File{Path: rel.UKI, Signed: *signed.UKI}
	}
	if err := l.machine.SetBoot(ctx, boot); err != nil {
		return powerFailure("power_boot", err)
	}
	if err := l.machine.On(ctx, boot); err != nil {
		return powerFailure("power_on", err)
	}
	return nil
}

// attest waits until the server says that everything in it runs, and then asks it from outside.
func (l *life) attest(ctx context.Context, s store.Server) error {
	end, err := l.bootEnd(ctx, s)
	if err != nil {
		return err
	}
	why, at := "is not ready", CheckServices
	if err := l.restarted(ctx, s); err != nil {
		return err
	}
	_, err = l.wait(ctx, s, func(s store.Server) (bool, error) {
		if h, ok := health(s); ok && !h.Ready {
			why = "is not ready: " + services(h.Services)
		}
		if !l.fresh(s) {
			return false, l.sick(ctx, s, at, end, l.late(why))
		}
		l.known.ready, at = true, CheckProbe
		asking, cancel := context.WithTimeout(ctx, probeLimit)
		defer cancel()
		if err := l.Prober.Probe(asking, l.server); err != nil {
			why = "does not take users: " + err.Error()
			return false, l.sick(ctx, s, at, end, l.late(why))
		}
		l.known.probed = true
		return true, nil
	})
	if err != nil {
		return err
	}
	return l.move(ctx, s, inventory.Baking, "ready, and answers from outside")
}

// bake watches a healthy server before users come.
func (l *life) bake(ctx context.Context, s store.Server) error {
	end := s.Since.Add(l.rules.Bake)
	l.known = facts{on: true, joined: true, evidence: s.Evidence, ready: true, probed: true}
	quiet := silence{until: time.Now().Add(plan.FreshFor)} // a controller that comes back gives the server this long to be heard
	over := time.AfterFunc(time.Until(end), l.watch.wake)
	defer over.Stop()
	_, err := l.wait(ctx, s, func(s store.Server) (bool, error) {
		if h, ok := health(s); ok && !h.Ready && time.Since(s.HealthAt) < plan.FreshFor {
			return false, &failure{CheckTraffic, "bake", "was ready and is not: " + services(h.Services)}
		}
		if !l.fresh(s) {
			end := quiet.end(s.HealthAt, l.watch.heardBeside(s.Name), time.Now(), l.rules.BootLimit)
			return false, l.sick(ctx, s, CheckTraffic, end, fmt.Sprintf("was ready and has gone silent: last heard at %s", s.HealthAt.UTC().Format(time.RFC3339)))
		}
		return !time.Now().Before(end), l.sick(ctx, s, CheckTraffic, end.Add(l.rules.BootLimit), "")
	})
	if err != nil {
		return err
	}
	return l.move(ctx, s, inventory.Serving, "healthy for "+l.rules.Bake.String())
}

func (l *life) fresh(s store.Server) bool {
	return ready(s) && time.Since(s.HealthAt) <= plan.FreshFor
}

// bootEnd is when a boot has to be ready. A process that takes over gives it the whole time again, for the controller may have been away; but not
// one after the other for ever.
func (l *life) bootEnd(ctx context.Context, s store.Server) (time.Time, error) {
	if !l.end.IsZero() {
		return l.end, nil
	}
	entries, err := l.Store.Journal(ctx, s.Name)
	if err != nil {
		return l.end, err
	}
	watchers := 0
	for _, e := range entries {
		if e.Epoch == s.Epoch && e.Step == stepWatch {
			watchers++
		}
	}
	if err := l.journal(ctx, s, stepWatch, Intent, ""); err != nil {
		return l.end, err
	}
	now := time.Now()
	l.end = now.Add(l.rules.BootLimit)
	if watchers >= maxWatchers {
		l.end = now.Add(plan.FreshFor)
		if whole := s.BootedAt.Add(l.rules.BootLimit); whole.After(l.end) {
			l.end = whole
		}
	}
	return l.end, nil
}

// late is what a boot that misses its end is told of.
func (l *life) late(what string) string { return fmt.Sprintf("%s within %v", what, l.rules.BootLimit) }

// sick says why a boot has failed, or nil while there is hope. at is the check that it waits for, late what is said when it has waited until end. A
// machine whose status cannot be read has not failed for that: it may run and be well.
func (l *life) sick(ctx context.Context, s store.Server, at Check, end time.Time, late string) error {
	if s.Revoked {
		return &failure{CheckJoin, "ticket_used_twice", "two machines came with its ticket, both are refused"}
	}
	if over := late != "" && !time.Now().Before(end); over || time.Since(l.looked) >= l.lookEvery() {
		l.looked = time.Now()
		if f, err := l.reported(ctx, s); f != nil || err != nil {
			return errors.Join(err, asError(f))
		}
		got, err := l.status(ctx)
		switch {
		case err != nil && ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil && !l.unread:
			l.unread = true
			l.sayf("%s: whether it runs cannot be read, it is waited for: %v", s.Name, err)
		case err == nil && (!got.On || got.Epoch != 0 && got.Epoch != s.Epoch): // 0: it cannot be told from here
			return l.ended(ctx, s)
		}
		l.unread = err != nil
		if over {
			return &failure{at, "boot_limit", late}
		}
	}
	return nil
}

// lookEvery is how often a machine is asked whether it runs, and the store whether it said why it does not come: the more this process carries, the more seldom.
func (l *life) lookEvery() time.Duration {
	return max(min(readBackEvery, lookPolls*l.Poll), time.Duration(l.lives.Load())*lookEach)
}

// reported is what the machine said of a boot that failed.
func (l *life) reported(ctx context.Context, s store.Server) (*failure, error) {
	reason, detail, ok, err := l.Store.LastFailure(ctx, s.Name, s.Epoch)
	if err != nil || !ok {
		return nil, err
	}
	return &failure{checkOf(reason, s.BootID != ""), reason, detail}, nil
}

func asError(f *failure) error {
	if f == nil {
		return nil
	}
	return f
}

// ended is the failure of a machine that switched itself off.
func (l *life) ended(ctx context.Context, s store.Server) error {
	if f, err := l.reported(ctx, s); f != nil || err != nil {
		return errors.Join(err, asError(f))
	}
	at := CheckBoot
	if s.BootID != "" {
		at = CheckServices
	}
	return &failure{at, "machine_ended", "the machine is off"}
}

func services(m map[string]string) string {
	var bad []string
	for name, state := range m {
		if state != "running" {
			bad = append(bad, join.Printable(name, maxService)+" "+join.Printable(state, maxServiceText))
		}
	}
	slices.Sort(bad)
	if len(bad) == 0 {
		return "every service runs"
	}
	return strings.Join(bad, ", ")
}

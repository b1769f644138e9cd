package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"mayfly/internal/hint"
	"mayfly/policies/ledger"
	"mayfly/tunnel/checkin"
	"mayfly/tunnel/wire"
)

// Times of the loop.
const (
	listEvery    = 20 * time.Second // a server that is gone from the list is left at the latest after this
	backoffFirst = 500 * time.Millisecond
	backoffMost  = 20 * time.Second
	triesEach    = 3 // servers tried before the next back-off
)

// Options say what a client does.
type Options struct {
	Config     checkin.ClientConfig
	Region     string         // "" is any
	Routes     []netip.Prefix // what goes through the tunnel; none is everything
	ResolvConf string         // a resolv.conf to point at the tunnel's resolver; "" leaves it alone
	Events     func(Event)    // called from several goroutines, never at once
	Log        *slog.Logger
}

type client struct {
	options Options
	log     *slog.Logger
	checkin checkin.Client
	dial    dialer
	slots   slots
	routes  routes
	resolv  resolver
	running sync.WaitGroup // watchers, and sessions being left

	telling sync.Mutex

	current  *session
	leaving  string    // why the current session must go; "" while it may stay
	deadline time.Time // when its server goes, or its life is over; zero: not known
	carried  bool      // it was up once
}

// Run carries traffic until ctx ends, and then takes everything away again. Before it was up once, a refusal ends it; afterwards
// it keeps trying, whatever happens.
func Run(ctx context.Context, o Options) (err error) {
	for _, p := range o.Routes {
		if !p.IsValid() || !p.Addr().Is4() || p != p.Masked() {
			return fmt.Errorf("route %q: want an IPv4 prefix like 203.0.113.0/24", p)
		}
	}
	if len(o.Routes) == 0 {
		o.Routes = []netip.Prefix{everything4}
	}
	lock, err := only()
	if err != nil {
		return err
	}
	defer lock.Close()
	c := &client{
		options: o, log: o.Log, dial: outside(), routes: routes{prefixes: o.Routes}, resolv: resolver{path: o.ResolvConf},
	}
	c.checkin = checkin.Client{Config: o.Config, Dial: c.dial}
	if err := c.routes.prepare(); err != nil {
		return errors.Join(err, c.routes.remove())
	}
	inner, cancel := context.WithCancel(ctx)
	defer func() {
		cancel()
		err = errors.Join(err, c.stop())
	}()
	return c.loop(inner)
}

func (c *client) loop(ctx context.Context) error {
	var back backoff
	refresh := time.NewTicker(listEvery)
	defer refresh.Stop()
	for {
		if c.current == nil || c.leaving != "" {
			err := c.move(ctx)
			switch {
			case ctx.Err() != nil:
				return nil
			case err == nil:
				back = backoff{}
			case !c.carried && fatal(err), errors.Is(err, errSetup):
				return hintFor(err)
			default:
				c.log.Warn("no server yet", "error", err)
				c.tell(Event{Event: "waiting", Reason: short(err)})
				c.pause(ctx, c.patience(back.next()))
				c.giveUp()
			}
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case s := <-c.current.signal:
			c.heard(s)
		case <-c.current.dev.Wait():
			c.lost()
		case <-refresh.C:
			c.review(ctx)
		}
	}
}

// pause waits before the next try, and meanwhile hears what becomes of the current session.
func (c *client) pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	var signals <-chan signal
	var closed <-chan struct{}
	if c.current != nil && c.leaving != reasonLost {
		signals, closed = c.current.signal, c.current.dev.Wait()
	}
	select {
	case <-ctx.Done():
	case <-t.C:
	case s := <-signals:
		c.heard(s)
	case <-closed:
		c.lost()
	}
}

// heard takes what the current session's watcher tells.
func (c *client) heard(s signal) {
	if s.draining {
		c.leaving = reasonDraining
		if c.deadline.IsZero() || !s.deadline.IsZero() && s.deadline.Before(c.deadline) {
			c.deadline = s.deadline
		}
	} else {
		c.lost()
	}
}

// patience shortens a wait so that the end of a draining server is not slept through.
func (c *client) patience(d time.Duration) time.Duration {
	if c.current == nil || c.deadline.IsZero() {
		return d
	}
	if left := time.Until(c.deadline); left > 0 && left < d {
		return left
	}
	return d
}

// giveUp ends the hope for a draining server whose time is over.
func (c *client) giveUp() {
	if c.current != nil && c.leaving != reasonLost && !c.deadline.IsZero() && !time.Now().Before(c.deadline) {
		c.lost()
	}
}

// lost says that the current session carries no more. Its interface stays until there is another, so that nothing leaks around it.
func (c *client) lost() {
	c.leaving, c.deadline = reasonLost, time.Now()
	e := c.current.event("down")
	e.Reason = reasonLost
	c.tell(e)
}

// review looks at a fresh list. A list that cannot be had changes nothing.
func (c *client) review(ctx context.Context) {
	l, err := c.checkin.Fetch(ctx, time.Now())
	if err != nil {
		if ctx.Err() == nil {
			c.log.Warn("checking in", "error", err)
		}
		return
	}
	name := c.current.grant.server.Name
	if takesUsers(l, name) {
		return
	}
	c.leaving = reasonUnlisted
	if slices.ContainsFunc(l.Servers, func(s checkin.Server) bool { return s.Name == name }) {
		c.leaving = reasonDraining
	}
}

func takesUsers(l *checkin.List, name string) bool {
	return slices.ContainsFunc(l.Servers, func(s checkin.Server) bool { return s.Name == name && !s.Draining })
}

// errSetup is a failure of this machine, which no other server mends.
var errSetup = errors.New("setting up this machine")

// move opens a session on another server, switches to it, and leaves the one before. If the list names the current server again,
// there is no need to.
func (c *client) move(ctx context.Context) error {
	l, err := c.checkin.Fetch(ctx, time.Now())
	if err != nil {
		return err
	}
	if c.leaving == reasonUnlisted && takesUsers(l, c.current.grant.server.Name) {
		c.leaving = ""
		return nil
	}
	next, err := c.connect(ctx, l)
	if err != nil {
		return err
	}
	if err := c.routes.to(next); err != nil {
		return errors.Join(errSetup, err, c.end(next, true))
	}
	before, why, deadline := c.current, c.leaving, c.deadline
	c.current, c.leaving, c.deadline = next, "", next.grant.ends // whatever server and list say then
	if err := c.resolv.point(next.grant.dns); err != nil {
		return errors.Join(errSetup, err)
	}
	if before == nil {
		c.tell(next.event("up"))
		return nil
	}
	e := next.event("moved")
	e.From, e.Reason = before.grant.server.Name, why
	c.tell(e)
	c.running.Go(func() { c.leave(ctx, before, deadline) })
	return nil
}

// connect chooses a server of a list, registers and opens.
func (c *client) connect(ctx context.Context, l *checkin.List) (*session, error) {
	except := ""
	if c.current != nil && c.leaving != reasonLost {
		except = c.current.grant.server.Name
	}
	servers, err := candidates(l, c.options.Region, except, rand.Shuffle)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, server := range servers[:min(len(servers), triesEach)] {
		g, err := register(ctx, c.options.Config, server, c.dial)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if c.current != nil && c.current.grant.address == g.address {
			// The same inner address by chance, from a server that forgot us: two rules could not tell the sessions apart.
			if err := c.close(c.current); err != nil {
				return nil, err
			}
		}
		s, err := c.open(ctx, g)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		c.carried = true
		return s, nil
	}
	return nil, errors.Join(errs...)
}

// stop takes everything away.
func (c *client) stop() error {
	var errs []error
	if c.current != nil {
		errs = append(errs, c.end(c.current, c.leaving != reasonLost))
	}
	c.running.Wait()
	errs = append(errs, c.resolv.restore(), c.routes.remove())
	if c.current != nil {
		c.tell(Event{Event: "down", Server: c.current.grant.server.Name, Reason: reasonStopped})
	}
	return errors.Join(errs...)
}

func (c *client) tell(e Event) {
	c.telling.Lock()
	defer c.telling.Unlock()
	c.options.Events(e)
}

// fatal tells a refusal, which trying again does not mend.
func fatal(err error) bool {
	var r interface{ Refused() bool }
	return errors.As(err, &r) && r.Refused()
}

// short is a reason for an event: a code where there is one.
func short(err error) string {
	var list *checkin.Refusal
	var server *wire.Refusal
	switch {
	case errors.As(err, &list):
		return list.Reason
	case errors.As(err, &server):
		return string(server.Reason)
	case ledger.ReasonOf(err) != "":
		return ledger.ReasonOf(err)
	case fatal(err):
		return "server_untrusted"
	}
	return "no_server"
}

// backoff doubles its waits, each with a random part, so that clients of a dead server do not come back all at once.
type backoff struct{ last time.Duration }

func (b *backoff) next() time.Duration {
	b.last = min(max(2*b.last, backoffFirst), backoffMost)
	return b.last/2 + rand.N(b.last/2)
}

// hintFor names the mend of an error that a person sees.
func hintFor(err error) error {
	if hint.Of(err) != "" {
		return err
	}
	var r *checkin.Refusal
	if errors.As(err, &r) {
		switch r.Reason {
		case checkin.Unreachable:
			return hint.New(err, "is check-in running, and is there a way to it?")
		case checkin.Untrusted, checkin.Unsigned, checkin.OtherFleet:
			return hint.New(err, "take the fleet's newest client.json from its operator; do not go on without it")
		case checkin.Expired, checkin.NotYet:
			return hint.New(err, "check this machine's clock; if it is right, the fleet's signer does not run")
		}
	}
	return err
}

package rotate

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"mayfly/fleetctl/plan"
	"mayfly/inventory"
	"mayfly/inventory/store"
)

// Why nothing more begins: results of a run.
const (
	paused    = "paused"    // until somebody resumes; the run stays open
	cancelled = "cancelled" // for good
	stopped   = "stopped"   // the release turned out to be bad
	stuck     = "stuck"     // nobody has power over the machines
)

// Implementation constants of a run.
const (
	// batchLimit is how long the decisions of one plan are acted on before the next one is made.
	batchLimit = 5 * time.Second
	// maxLives bounds the servers that one process carries at once.
	maxLives = 4096
)

// work is one process's part of a run. Its loop owns it.
type work struct {
	*Runner
	rules  plan.Rules
	result *Result
	watch  *watch
	lives  map[string]bool // servers that this process carries
	ended  chan outcome
	failed error // ends the run here, when what is in flight here has ended

	away int // servers in flight that others carry

	strangers map[string]bool // servers in flight that the inventory does not have; each is said once
	open      bool            // the run is still open
	beganAt   time.Time       // the run
	halted    string          // why nothing more begins, as a Result: "", "paused", "cancelled" or "stopped"
	why       string          // of halted
	cannot    string          // the error of a release that servers would boot, once it was said
	quiet     time.Time       // since when nothing has been in flight
	plan      plan.Plan       // the newest
	planned   bool            // whether there is one that was not refused

	turned uint64            // number of the newest reading that was acted on
	gone   map[string]uint64 // servers whose life ended here → the newest reading that may not know yet
	last   uint64            // the greatest of those
}

// loop starts a life for every server in flight that nobody carries and for every one that may go, until none is left.
func (r *Runner) loop(ctx context.Context, rules plan.Rules, result *Result) error {
	working, cancel := context.WithCancel(ctx)
	w := &work{Runner: r, rules: rules, result: result, watch: r.watch(working), lives: map[string]bool{}, strangers: map[string]bool{}, gone: map[string]uint64{}, ended: make(chan outcome), quiet: time.Now(), open: true}
	defer func() { cancel(); <-w.watch.done }()
	for {
		now, changed, err := w.watch.now()
		if w.failed == nil && ctx.Err() == nil && now.number > w.turned {
			w.turned = now.number
			if err == nil {
				err = w.turn(working, now)
			}
			if w.failed = err; err != nil && ctx.Err() == nil {
				if refused := (*Refused)(nil); !errors.As(err, &refused) {
					cancel() // refused or not, what is in flight still ends; what the store cannot tell does not
				}
			}
		}
		if over, err := w.over(ctx); over {
			return err
		}
		select {
		case o := <-w.ended:
			w.took(ctx, o)
		case <-changed:
		case <-done(ctx, w.lives):
		case <-done(working, w.lives):
		}
	}
}

// took notes how a life ended here.
func (w *work) took(ctx context.Context, o outcome) {
	delete(w.lives, o.Name)
	w.Runner.lives.Store(int64(len(w.lives)))
	w.last = w.watch.number()
	w.gone[o.Name] = w.last
	w.watch.wake() // whoever waits for its place goes now
	switch {
	case o.lost:
		w.sayf("%s: %v", o.Name, errLost)
	case o.err != nil:
		if w.failed == nil && ctx.Err() == nil {
			w.failed = o.err
		}
	default:
		w.result.Servers = append(w.result.Servers, o.Rebuilt)
	}
}

// turn does what one reading of the store asks for.
func (w *work) turn(ctx context.Context, now reading) error {
	if err := w.asked(ctx); err != nil || !w.open {
		return err
	}
	if err := w.resume(ctx, now); err != nil {
		return err
	}
	known, err := w.trials.read(ctx, w.Store)
	if err != nil {
		return err
	}
	w.planned = false
	if w.plan, err = w.planOf(now.servers, known, w.rules, time.Now()); err != nil {
		return err
	}
	w.planned = true
	w.choose(w.plan)
	if err := w.train(ctx, w.plan, known); err != nil {
		return err
	}
	if w.halted == "" {
		err = w.start(ctx, now, known)
	}
	w.show(now)
	return err
}

// asked reads whether the run is open, and whether people stopped it.
func (w *work) asked(ctx context.Context) error {
	open, found, err := w.Store.OpenRun(ctx)
	if err != nil {
		return err
	}
	if w.open = found && open.ID == w.result.Run; !w.open {
		return nil
	}
	w.beganAt = open.Began
	pause, err := w.Store.Paused(ctx)
	if err != nil {
		return err
	}
	was := w.halted
	switch {
	case w.halted == stopped || w.halted == stuck:
		return nil
	case !open.Cancelled.IsZero():
		w.halted, w.why = cancelled, "cancelled by "+open.By+" at "+open.Cancelled.Format(time.RFC3339)
	case pause.On:
		w.halted, w.why = paused, pauseText(pause)
	default:
		w.halted, w.why = "", ""
	}
	if w.halted != was && w.halted != "" {
		w.sayf("run %d: %s: nothing more begins, what is under way ends", w.result.Run, w.why)
	} else if w.halted != was {
		w.sayf("run %d goes on", w.result.Run)
	}
	return nil
}

// over reports whether there is nothing left to do here, and how it ended.
func (w *work) over(ctx context.Context) (bool, error) {
	if len(w.lives) > 0 {
		w.quiet = time.Now()
		return false, nil
	}
	switch {
	case ctx.Err() != nil:
		return true, w.interrupted(w.result)
	case w.failed != nil:
		return true, w.failed
	case !w.open: // another process has ended it
		return true, w.join(ctx)
	case !w.planned || w.turned <= w.last: // the newest plan does not know yet how the last life ended
		return false, nil
	case w.away > 0:
		w.quiet = time.Now()
		return false, nil
	case w.halted != "":
		w.result.Result, w.result.Why = w.halted, w.why
		return true, w.settle(ctx)
	case len(w.plan.Targets()) == 0:
		return true, w.settle(ctx)
	}
	reason := w.waitsFor()
	if reason == plan.RateLimit { // it will be let go within the hour
		w.quiet = time.Now()
		return false, nil
	}
	if reason != plan.Closed && time.Since(w.quiet) <= w.Stuck {
		return false, nil
	}
	w.result.Result = "stuck"
	if reason == plan.Closed {
		w.result.Result = "waiting"
	}
	for _, s := range w.plan.Steps {
		if s.Due {
			w.result.Waiting = append(w.result.Waiting, s.Server+": "+s.Why)
		}
	}
	return true, w.settle(ctx)
}

// waitsFor is what everything that is due waits for when nothing is under way: a rate, a window or a blackout (Closed), or else anything.
func (w *work) waitsFor() plan.Reason {
	closed := true
	for _, s := range w.plan.Steps {
		switch {
		case !s.Due || s.Reason == plan.Closed || s.Reason == plan.Blacked:
		case s.Reason == plan.RateLimit:
			return plan.RateLimit
		default:
			closed = false
		}
	}
	if closed {
		return plan.Closed
	}
	return ""
}

// done is ctx's end when no life is left to report it.
func done(ctx context.Context, lives map[string]bool) <-chan struct{} {
	if len(lives) > 0 {
		return nil
	}
	return ctx.Done()
}

// resume begins a life for each server that is in flight and that nobody carries: an earlier process began it.
func (w *work) resume(ctx context.Context, now reading) error {
	w.away = 0
	for _, s := range now.servers {
		if w.lives[s.Name] || w.unsure(s.Name) || !s.State.InFlight() || s.Tainted && time.Now().Before(s.HeldUntil) {
			continue
		}
		if _, ok := w.Bundle.Inventory.RebuiltServer(s.Name); !ok {
			if !w.strangers[s.Name] { // whoever took it out of the inventory keeps no other server from its rebuild
				w.strangers[s.Name] = true
				w.sayf("%s: %s in life %d, and not in the signed inventory: left as it is, `fleetctl diff` names it", s.Name, s.State, s.Epoch)
			}
			continue
		}
		if now.claimed[s.Name] || len(w.lives) >= maxLives {
			w.away++
			continue
		}
		h, err := w.take(ctx, s.Name)
		if errors.Is(err, store.ErrClaimed) {
			w.away++
			continue
		}
		if err != nil {
			return err
		}
		l, err := w.life(s.Name, w.rules, h)
		if err != nil {
			h.release()
			return err
		}
		w.sayf("%s: goes on, %s in life %d", s.Name, s.State, s.Epoch)
		w.begin(ctx, l)
	}
	return nil
}

// unsure reports whether the present reading may be older than what this process did to a server last.
func (w *work) unsure(server string) bool { return w.turned <= w.gone[server] }

// begin carries a life on in a goroutine of its own, which gives the claim back at its end.
func (w *work) begin(ctx context.Context, l *life) {
	w.lives[l.server.Name] = true
	w.Runner.lives.Store(int64(len(w.lives)))
	l.watch = w.watch
	go func() {
		living, cancel := context.WithCancelCause(ctx)
		stop := context.AfterFunc(l.hold.ctx, func() { cancel(context.Cause(l.hold.ctx)) })
		o := l.live(living)
		o.lost = l.hold.lost() || errors.Is(o.err, store.ErrFenced)
		stop()
		l.hold.release()
		w.ended <- o
	}()
}

// start takes away the servers that the plan lets go, and begins their next life.
func (w *work) start(ctx context.Context, now reading, known Known) error {
	if why := powerless(now.servers, time.Now()); why != "" && !w.rules.Retry && w.rules.Mode != plan.Emergency {
		w.halted, w.why = stuck, why
		w.result.Waiting = append(w.result.Waiting, why)
		w.sayf("run %d: %s: nothing more begins, what is under way ends", w.result.Run, why)
		return nil
	}
	b := w.batch(now.servers, known)
	var cannot error // what a server would boot cannot be: it stays where it is, and what is under way goes on
	for _, s := range w.plan.Now() {
		if w.lives[s.Server] || w.unsure(s.Server) || now.claimed[s.Server] {
			continue // its last life has just ended, or another process takes it: the next plan knows
		}
		if time.Since(w.plan.Made) > batchLimit || len(w.lives) >= maxLives {
			return nil
		}
		if stopped, err := w.stopped(ctx); err != nil || stopped {
			return err
		}
		if _, err := w.bootable(w.releaseFor(s.Server, known)); err != nil {
			if cannot == nil && w.cannot != err.Error() {
				w.cannot = err.Error()
				w.sayf("%s does not leave: %v", s.Server, err)
			}
			if cannot == nil {
				cannot = err
			}
			continue
		}
		if err := w.leave(ctx, s, b); err != nil {
			return err
		}
	}
	if len(w.lives) > 0 || w.away > 0 {
		return nil
	}
	return cannot
}

// stopped looks again, before each server that leaves, whether people have stopped the run meanwhile.
func (w *work) stopped(ctx context.Context) (bool, error) {
	pause, err := w.Store.Paused(ctx)
	if err != nil || pause.On {
		return true, err
	}
	open, found, err := w.Store.OpenRun(ctx)
	return err != nil || !found || open.ID != w.result.Run || !open.Cancelled.IsZero(), err
}

// leave claims a server and takes it away, if the fleet still allows it.
func (w *work) leave(ctx context.Context, s plan.Step, b *batch) error {
	h, err := w.take(ctx, s.Server)
	if errors.Is(err, store.ErrClaimed) {
		return nil
	}
	if err != nil {
		return err
	}
	l, err := w.life(s.Server, w.rules, h)
	if err != nil {
		h.release()
		return err
	}
	left, err := l.leave(ctx, s, b)
	if err != nil || !left {
		h.release()
		if errors.Is(err, store.ErrStale) || errors.Is(err, store.ErrFenced) || errors.Is(err, store.ErrHeld) {
			return nil // somebody else was faster
		}
		return err
	}
	b.moved(s)
	w.begin(ctx, l)
	return nil
}

// batch is what one plan lets go, one transaction after another. Within each the fleet is compared with the one that was planned for; where something else
// has changed, the planner is asked again before the server leaves.
type batch struct {
	r       *Runner
	rules   plan.Rules
	known   Known
	weights map[string]weight
}

// weight is what a plan looks at in a server.
type weight struct {
	state            inventory.State
	epoch            uint64
	revoked, tainted bool
	held, deadline   time.Time
	extended         bool
	ready            bool
	health           []byte
}

func weigh(s store.Server) weight {
	return weight{s.State, s.Epoch, s.Revoked, s.Tainted, s.HeldUntil, s.Deadline, s.Extended, ready(s), s.Health}
}

func (w *work) batch(servers []store.Server, known Known) *batch {
	b := &batch{r: w.Runner, rules: w.rules, known: known, weights: make(map[string]weight, len(servers))}
	for _, s := range servers {
		b.weights[s.Name] = weigh(s)
	}
	return b
}

// same reports whether nothing that plans look at has changed for the worse, but what the batch itself did.
func (b *batch) same(servers []store.Server, now time.Time) bool {
	if len(servers) != len(b.weights) {
		return false
	}
	for _, s := range servers {
		was, ok := b.weights[s.Name]
		if !ok || s.State != was.state || s.Epoch != was.epoch || s.Revoked != was.revoked || s.Tainted != was.tainted || s.Extended != was.extended ||
			!s.HeldUntil.Equal(was.held) || !s.Deadline.Equal(was.deadline) {
			return false
		}
		if s.State == inventory.Serving && heard(s, now) && slices.Contains(b.rules.Lost, s.Name) {
			return false // it is not dead: it may have come back since the plan
		}
		if was.ready && s.State == inventory.Serving && (now.Sub(s.HealthAt) > plan.FreshFor || !bytes.Equal(s.Health, was.health) && !ready(s)) {
			return false
		}
	}
	return true
}

// moved notes what the batch did.
func (b *batch) moved(s plan.Step) {
	x := b.weights[s.Server]
	x.state, x.ready = inventory.Draining, false
	if s.State != inventory.Serving {
		x = weight{state: inventory.Wiping, epoch: s.Epoch + 1}
	}
	b.weights[s.Server] = x
}

// check is asked inside the transaction that takes a server away: would the planner still let it go?
func (b *batch) check(step plan.Step) store.Check {
	return func(servers []store.Server) error {
		now := time.Now()
		if b.same(servers, now) {
			return nil
		}
		p, err := b.r.planOf(servers, b.known, b.rules, now)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(p.Now(), func(x plan.Step) bool { return x.Server == step.Server && x.Epoch == step.Epoch }) {
			return nil
		}
		return errNotNow
	}
}

// errNotNow says that the fleet changed between the plan and the transaction.
var errNotNow = errors.New("may not leave any more")

// settle ends, at the end of a run, the rotations that a process which was killed could not end any more.
func (w *work) settle(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	open, found, err := w.Store.OpenRun(ctx)
	if err != nil || !found || open.ID != w.result.Run {
		return err
	}
	outcomes, err := w.Store.Outcomes(ctx, "", open.Began)
	if err != nil {
		return err
	}
	ended := map[oneLife]store.Outcome{}
	for _, o := range outcomes {
		ended[oneLife{o.Server, o.Epoch}] = o
	}
	servers, err := w.Store.Servers(ctx)
	if err != nil {
		return err
	}
	mine := map[string]bool{}
	for _, s := range w.result.Servers {
		mine[s.Name] = true
	}
	for _, s := range servers {
		was, target := w.rules.Targets[s.Name]
		if !target && !mine[s.Name] || target && s.Epoch <= was || s.State != inventory.Serving && s.State != inventory.Quarantined {
			continue
		}
		o, done := ended[oneLife{s.Name, s.Epoch}]
		if !done {
			if o, err = w.endRotation(ctx, w.Store, s); err != nil {
				return err
			}
		}
		if !mine[s.Name] && o.Run == w.result.Run {
			w.result.Servers = append(w.result.Servers, rebuilt(s, o))
		}
	}
	slices.SortFunc(w.result.Servers, func(a, b Rebuilt) int { return strings.Compare(a.Name, b.Name) })
	return nil
}

// join is the result of a run that another process has ended.
func (w *work) join(ctx context.Context) error {
	last, ok, err := w.Store.LastRun(ctx)
	if err != nil {
		return err
	}
	if w.result.Result = "done"; ok && last.ID == w.result.Run {
		w.result.Result = last.Result
	}
	return nil
}

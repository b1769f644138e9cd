package rotate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"mayfly/fleetctl/plan"
	"mayfly/internal/hint"
	"mayfly/inventory"
	"mayfly/inventory/store"
	"mayfly/policies/bundle"
)

// Implementation constants.
const (
	defaultPoll = 500 * time.Millisecond
	// stuckLimit is how long a run waits when nothing is in flight and nothing may start, for health that comes back.
	stuckLimit = time.Minute
)

// Runner carries a run to its end. All fields but Poll and Stuck are needed.
type Runner struct {
	Store    store.Store
	Bundle   *bundle.Bundle
	Release  Release
	Trust    []byte // trust.json
	CA       []byte // PEM of the fleet's TLS CA
	Machines Machines
	Tickets  Tickets
	Ledger   Ledger // nil tells nobody when a life is over
	Prober   Prober
	Talk     io.Writer // one line a step

	Poll  time.Duration // how often the store is read
	Stuck time.Duration // how long to wait when nothing may start; stuckLimit when zero

	point func(name string) // set by tests: called around every effect and every write

	talk sync.Mutex // guards Talk
	run  int64      // the open run; set before the first life begins
}

// Result is what a run did.
type Result struct {
	Run     int64     `json:"run"`
	Resumed bool      `json:"resumed"`
	Result  string    `json:"result"` // "done", "nothing due", "quarantined", "stuck", "interrupted"
	Servers []Rebuilt `json:"servers"`
	Waiting []string  `json:"waiting,omitempty"` // due, not begun, and why
}

// Rebuilt is one server that the run brought to an end, good or bad.
type Rebuilt struct {
	Name    string          `json:"name"`
	State   inventory.State `json:"state"`
	Epoch   uint64          `json:"epoch"`
	Release string          `json:"release"`
	Seconds float64         `json:"seconds"`      // since it left, as far as this process saw
	Boot    float64         `json:"boot_seconds"` // from power on to joined; 0: not seen
	Cause   string          `json:"cause,omitempty"`
}

// ErrInterrupted ends a run that was asked to stop. Everything it began is in the store.
var ErrInterrupted = errors.New("interrupted")

// Plan is the plan that Run would begin now with these rules.
func (r *Runner) Plan(ctx context.Context, rules plan.Rules, now time.Time) (plan.Plan, error) {
	servers, err := r.Store.Servers(ctx)
	if err != nil {
		return plan.Plan{}, err
	}
	return MakePlan(r.Bundle, r.Release.Statement.Version, servers, rules, now)
}

// MakePlan is the plan for servers as the store knows them. One that the store does not know yet is new.
func MakePlan(b *bundle.Bundle, release uint64, servers []store.Server, rules plan.Rules, now time.Time) (plan.Plan, error) {
	s, h := Snapshot(b, release, servers)
	p, refused := plan.Make(s, rules, h, now)
	if len(refused) > 0 {
		return p, &Refused{refused}
	}
	return p, nil
}

// Refused says that the rules cannot be kept. Nothing was touched.
type Refused struct{ Why plan.Refusals }

func (r *Refused) Error() string { return r.Why.Error() }
func (r *Refused) Refused() bool { return true }

// record is what BeginRun keeps: what the run is for.
type record struct {
	Plan  plan.Plan  `json:"plan"`
	Rules plan.Rules `json:"rules"`
}

// Run finishes the open run, if there is one, and otherwise plans and begins one. A run that was interrupted goes on with the
// servers that it began with.
func (r *Runner) Run(ctx context.Context, rules plan.Rules) (Result, error) {
	if r.Poll == 0 {
		r.Poll = defaultPoll
	}
	if r.Stuck == 0 {
		r.Stuck = stuckLimit
	}
	if err := r.Store.Sync(ctx, r.Bundle.Inventory, time.Now()); err != nil {
		return Result{}, err
	}
	var result Result
	open, found, err := r.Store.OpenRun(ctx)
	if err != nil {
		return result, err
	}
	var rec record
	if found {
		if err := json.Unmarshal(open.Plan, &rec); err != nil {
			return result, fmt.Errorf("reading the plan of run %d: %w", open.ID, err)
		}
		result.Run, result.Resumed = open.ID, true
		r.sayf("run %d goes on: it finishes what it began; what else is due waits for the next rotate", open.ID)
	} else {
		p, err := r.Plan(ctx, rules, time.Now())
		if err != nil {
			return result, err
		}
		if len(p.Targets()) == 0 && !anyInFlight(p) {
			result.Result = "nothing due"
			return result, nil
		}
		rec = record{p, rules}
		data, err := json.Marshal(rec)
		if err != nil {
			return result, fmt.Errorf("encoding the plan: %w", err)
		}
		r.at("begin-run")
		if result.Run, err = r.Store.BeginRun(ctx, data, time.Now()); err != nil {
			return result, err
		}
		r.at("run-begun")
		r.sayf("run %d: %d servers to rebuild, plan %.12s", result.Run, len(p.Targets()), p.Inputs)
	}
	r.run = result.Run
	rules.Targets = rec.Plan.Targets()
	rules.Retry = rules.Retry || rec.Rules.Retry
	for _, l := range rec.Rules.Lost {
		if !slices.Contains(rules.Lost, l) {
			rules.Lost = append(rules.Lost, l)
		}
	}
	err = r.loop(ctx, rules, &result)
	if errors.Is(err, ErrInterrupted) {
		return result, err
	}
	if err != nil {
		return result, fmt.Errorf("run %d is not finished, the next rotate goes on with it: %w", result.Run, err)
	}
	r.at("end-run")
	if err := r.Store.EndRun(context.WithoutCancel(ctx), result.Run, result.Result, time.Now()); err != nil {
		return result, err
	}
	return result, verdict(result)
}

// verdict turns an ended run that did not do all of its work into an error.
func verdict(result Result) error {
	var bad []string
	for _, s := range result.Servers {
		if s.State == inventory.Quarantined {
			bad = append(bad, s.Name+": "+s.Cause)
		}
	}
	switch {
	case len(bad) > 0:
		return hint.New(fmt.Errorf("run %d: %d servers are quarantined: %s", result.Run, len(bad), strings.Join(bad, "; ")),
			"mend the cause, then `fleetctl rotate --retry`")
	case len(result.Waiting) > 0:
		return hint.New(fmt.Errorf("run %d: nothing may start any more: %s", result.Run, strings.Join(result.Waiting, "; ")),
			"bring the region's other servers back first; a dead one is named with `fleetctl rotate --lost NAME`")
	}
	return nil
}

// loop starts a life for every server in flight and for every one that may go, until none is left.
func (r *Runner) loop(ctx context.Context, rules plan.Rules, result *Result) error {
	work, cancel := context.WithCancel(ctx)
	defer cancel()
	lives := map[string]bool{}
	ended := make(chan outcome)
	tick := time.NewTicker(r.Poll)
	defer tick.Stop()
	quiet := time.Now() // since when nothing has been in flight
	var failed error
	for {
		var p plan.Plan
		if failed == nil && ctx.Err() == nil {
			if failed = r.resume(work, rules, lives, ended); failed == nil {
				p, failed = r.Plan(work, rules, time.Now()) // refused or not, what is in flight still ends
			}
			if failed == nil {
				failed = r.start(work, p, rules, lives, ended)
			}
			if failed != nil && ctx.Err() == nil {
				if refused := (*Refused)(nil); !errors.As(failed, &refused) {
					cancel()
				}
			}
		}
		if len(lives) == 0 {
			switch {
			case ctx.Err() != nil:
				return r.interrupted(result)
			case failed != nil:
				return failed
			case len(p.Targets()) == 0:
				result.finish()
				return nil
			case time.Since(quiet) > r.Stuck:
				for _, s := range p.Steps {
					if s.Due {
						result.Waiting = append(result.Waiting, s.Server+": "+s.Why)
					}
				}
				result.Result = "stuck"
				return nil
			}
		} else {
			quiet = time.Now()
		}
		select {
		case o := <-ended:
			delete(lives, o.Name)
			if o.err != nil {
				if failed == nil && ctx.Err() == nil {
					failed = o.err
				}
				continue
			}
			result.Servers = append(result.Servers, o.Rebuilt)
		case <-tick.C:
		case <-done(ctx, lives):
		}
	}
}

// done is ctx's end when no life is left to report it.
func done(ctx context.Context, lives map[string]bool) <-chan struct{} {
	if len(lives) > 0 {
		return nil
	}
	return ctx.Done()
}

// resume begins a life for each server that is in flight without one: an earlier process began it.
func (r *Runner) resume(ctx context.Context, rules plan.Rules, lives map[string]bool, ended chan<- outcome) error {
	servers, err := r.Store.Servers(ctx)
	if err != nil {
		return err
	}
	for _, s := range servers {
		if lives[s.Name] || !s.State.InFlight() || s.Tainted && time.Now().Before(s.HeldUntil) {
			continue
		}
		l, err := r.life(s.Name, rules)
		if err != nil {
			return err
		}
		r.sayf("%s: goes on, %s in life %d", s.Name, s.State, s.Epoch)
		lives[s.Name] = true
		go func() { ended <- l.live(ctx) }()
	}
	return nil
}

// start takes away the servers that the plan lets go, and begins their next life.
func (r *Runner) start(ctx context.Context, p plan.Plan, rules plan.Rules, lives map[string]bool, ended chan<- outcome) error {
	for _, s := range p.Now() {
		if lives[s.Server] {
			continue // its last life has just ended; the next plan knows
		}
		l, err := r.life(s.Server, rules)
		if err != nil {
			return err
		}
		left, err := l.leave(ctx, s, r.floor(s, rules))
		if err != nil {
			return err
		}
		if left {
			lives[s.Server] = true
			go func() { ended <- l.live(ctx) }()
		}
	}
	return nil
}

// floor is asked inside the transaction that takes a server away: would the planner still let it go?
func (r *Runner) floor(step plan.Step, rules plan.Rules) func([]store.Server) error {
	return func(servers []store.Server) error {
		s, h := Snapshot(r.Bundle, r.Release.Statement.Version, servers)
		p, refused := plan.Make(s, rules, h, time.Now())
		if len(refused) > 0 {
			return &Refused{refused}
		}
		for _, x := range p.Now() {
			if x.Server == step.Server && x.Epoch == step.Epoch {
				return nil
			}
		}
		return errNotNow
	}
}

// errNotNow says that the fleet changed between the plan and the transaction.
var errNotNow = errors.New("may not leave any more")

func (r *Runner) interrupted(result *Result) error {
	result.Result = "interrupted"
	servers, err := r.Store.Servers(context.Background())
	if err != nil {
		return err
	}
	var on []string
	for _, s := range servers {
		if s.State.InFlight() {
			on = append(on, fmt.Sprintf("%s is %s", s.Name, s.State))
		}
	}
	what := "no server is under way"
	if len(on) > 0 {
		what = strings.Join(on, ", ")
	}
	return hint.New(fmt.Errorf("%w: run %d stopped at a safe point: %s", ErrInterrupted, result.Run, what),
		"`fleetctl rotate` goes on from here")
}

func (r *Result) finish() {
	r.Result = "done"
	for _, s := range r.Servers {
		if s.State == inventory.Quarantined {
			r.Result = "quarantined"
		}
	}
	slices.SortFunc(r.Servers, func(a, b Rebuilt) int { return strings.Compare(a.Name, b.Name) })
}

func anyInFlight(p plan.Plan) bool {
	return slices.ContainsFunc(p.Steps, func(s plan.Step) bool { return s.Reason == plan.InFlight || s.Reason == plan.Tainted })
}

func (r *Runner) sayf(format string, args ...any) {
	r.talk.Lock()
	defer r.talk.Unlock()
	fmt.Fprintf(r.Talk, "fleetctl: rotate: "+format+"\n", args...)
}

// at marks a place where the process may be killed without harm. Tests kill it at every one.
func (r *Runner) at(name string) {
	if r.point != nil {
		r.point(name)
	}
}

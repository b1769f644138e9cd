package rotate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"mayfly/fleetctl/plan"
	"mayfly/internal/hint"
	"mayfly/inventory"
	"mayfly/inventory/store"
	"mayfly/policies/bundle"
)

// Implementation constants.
const (
	defaultPoll = 150 * time.Millisecond // a slow store is read less often: watch.go
	// stuckLimit is how long a run waits when nothing is in flight and nothing may start, for health that comes back.
	stuckLimit = time.Minute
)

// Runner carries a run to its end, with every other process that does. Fields are needed unless they say otherwise.
type Runner struct {
	Store    store.Store
	Bundle   *bundle.Bundle
	Release  Release                               // the release in use
	Releases func(version uint64) (Release, error) // any other, verified; nil: there is none but Release
	Trust    []byte                                // trust.json
	CA       []byte                                // PEM of the fleet's TLS CA
	Machines Machines
	Tickets  Tickets
	Ledger   Ledger // nil tells nobody when a life is over
	Prober   Prober
	Talk     io.Writer                 // one line a step
	Show     func(Progress)            // how far it is, once a poll; may be nil
	Zones    map[string]*time.Location // of the rules' windows
	Here     string                    // the server that this controller runs on, which it never takes out: Here
	Holder   string                    // who claims; Holder makes one for this process if it is empty
	// Overrides is asked before a run begins that breaks what the fleet promises (plan.Emergency). nil refuses.
	Overrides func(ctx context.Context, p plan.Plan) error
	// Expect, if there is one, refuses a plan that is not the one that was looked at: SamePlan, SameGrounds.
	Expect func(p plan.Plan) error

	TTL   time.Duration // of claims; ClaimTTL when zero
	Poll  time.Duration // how often the store is read
	Stuck time.Duration // how long to wait when nothing may start; stuckLimit when zero

	point func(name string) // set by tests: called around every effect and every write

	talk   sync.Mutex // guards Talk
	run    int64      // the open run; set before the first life begins
	trials trials
	lives  atomic.Int64 // how many this process carries

	chosen sync.Mutex         // guards the next two
	boots  map[string]uint64  // which release each server is to boot, by the newest plan
	loaded map[uint64]Release // releases that were verified
}

// Result is what a run did.
type Result struct {
	Run     int64     `json:"run"`
	Resumed bool      `json:"resumed"`
	Result  string    `json:"result"` // "done", "nothing due", "quarantined", "stuck", "waiting", "interrupted", "paused", "cancelled", "stopped", "rolled back"
	Servers []Rebuilt `json:"servers"`
	Waiting []string  `json:"waiting,omitempty"` // due, not begun, and why
	Why     string    `json:"why,omitempty"`     // of the last five
}

// Rebuilt is one server that the run brought to an end, good or bad.
type Rebuilt struct {
	Name      string          `json:"name"`
	State     inventory.State `json:"state"`
	Epoch     uint64          `json:"epoch"`
	Release   string          `json:"release"`
	Seconds   float64         `json:"seconds"`      // since it left, as far as this process saw
	Boot      float64         `json:"boot_seconds"` // from power on to joined; 0: not seen
	Restarted string          `json:"restarted"`    // how the machine proved that it was started anew; "": it did not
	Attempts  int             `json:"attempts"`     // lives that it took, without those that failed for want of power
	Outcome   string          `json:"outcome"`      // "served", "quarantined" or "stands by"
	Cause     string          `json:"cause,omitempty"`
}

// ErrInterrupted ends a run that was asked to stop. Everything it began is in the store.
var ErrInterrupted = errors.New("interrupted")

// Plan is the plan that Run would begin now with these rules.
func (r *Runner) Plan(ctx context.Context, rules plan.Rules, now time.Time) (plan.Plan, error) {
	servers, err := r.Store.Servers(ctx)
	if err != nil {
		return plan.Plan{}, err
	}
	known, err := r.trials.read(ctx, r.Store)
	if err != nil {
		return plan.Plan{}, err
	}
	return r.planOf(servers, known, rules, now)
}

func (r *Runner) planOf(servers []store.Server, known Known, rules plan.Rules, now time.Time) (plan.Plan, error) {
	known.Here = r.Here
	return PlanOf(r.Bundle, r.Release.Statement.Version, servers, known, r.Zones, rules, now)
}

// MakePlan is the plan for servers as the store knows them. One that the store does not know yet is new.
func MakePlan(b *bundle.Bundle, release uint64, servers []store.Server, rules plan.Rules, now time.Time) (plan.Plan, error) {
	return PlanOf(b, release, servers, Known{}, nil, rules, now)
}

// PlanOf is the plan for servers as the store knows them, with what else it knows.
func PlanOf(b *bundle.Bundle, release uint64, servers []store.Server, known Known, zones map[string]*time.Location, rules plan.Rules, now time.Time) (plan.Plan, error) {
	s, h := Snapshot(b, release, servers)
	known.Into(&s, servers, zones, now)
	p, refused := plan.Make(s, rules, h, now)
	if len(refused) > 0 {
		return p, &Refused{refused}
	}
	p.Policy = s.Policy
	var err error
	p.Rules, err = rulesName(rules)
	return p, err
}

// Refused says that the rules cannot be kept. Nothing was touched.
type Refused struct{ Why plan.Refusals }

func (r *Refused) Error() string { return r.Why.Error() }
func (r *Refused) Refused() bool { return true }

// refusedFor reports whether err is a refusal with this code.
func refusedFor(err error, code string) bool {
	refused := (*Refused)(nil)
	return errors.As(err, &refused) && slices.ContainsFunc(refused.Why, func(x plan.Refusal) bool { return x.Code == code })
}

// refusef is a refusal with one reason.
func refusef(code, format string, args ...any) *Refused {
	return &Refused{plan.Refusals{{Code: code, Detail: fmt.Sprintf(format, args...)}}}
}

// Codes of refusals that are rotate's own.
const (
	Unapproved     = "emergency_unapproved" // an emergency takes two people
	RunOpen        = "run_open"             // another run is not finished
	InputsChanged  = "plan_changed"         // what the plan was made from is not as it was
	ReleaseBad     = "release_bad"          // it is marked bad, and there is no good one
	ReleaseUnknown = "release_unknown"      // nothing says which release to boot
)

// record is what BeginRun keeps: what the run is for.
type record struct {
	Plan  plan.Plan  `json:"plan"`
	Rules plan.Rules `json:"rules"`
}

// Run joins the open run, if there is one, and otherwise plans and begins one. Any number of processes may do so at once: each carries the servers that it
// has claimed. One that was interrupted goes on with the servers that it began with. When a run ends because its release turned out to be bad,
// the servers that have it are brought back in a run of their own.
func (r *Runner) Run(ctx context.Context, rules plan.Rules) (Result, error) {
	r.defaults()
	result, err := r.once(ctx, rules)
	for range maxRollbacks {
		if result.Result != stopped || err != nil {
			break
		}
		rules.Mode, rules.All, rules.Only, rules.Targets = plan.Scheduled, false, nil, nil
		back, e := r.once(ctx, rules)
		if back.Result == "nothing due" {
			break
		}
		if back.Result == "done" {
			back.Result = "rolled back"
		}
		back.Why, back.Servers = result.Why, append(result.Servers, back.Servers...)
		result, err = back, e
	}
	for rules.Mode == plan.Upgrade && result.Result == "done" && err == nil && ctx.Err() == nil { // the next stage of the train, if it may begin already
		more, e := r.once(ctx, rules)
		if e == nil && more.Result == "nothing due" || refusedFor(e, RunOpen) { // another run began meanwhile: it takes the train on
			break
		}
		more.Servers = append(result.Servers, more.Servers...)
		result, err = more, e
	}
	if err == nil {
		err = verdict(result)
	}
	return result, err
}

// maxRollbacks bounds the runs that one call begins by itself.
const maxRollbacks = 2

func (r *Runner) defaults() {
	if r.Poll == 0 {
		r.Poll = defaultPoll
	}
	if r.Stuck == 0 {
		r.Stuck = stuckLimit
	}
	if r.TTL == 0 {
		r.TTL = ClaimTTL
	}
	if r.Holder == "" {
		name, err := os.Hostname()
		if err != nil {
			name = "controller"
		}
		r.Holder = Holder(name)
	}
}

// once carries one run to its end.
func (r *Runner) once(ctx context.Context, rules plan.Rules) (Result, error) {
	var result Result
	if err := r.Store.Sync(ctx, r.Bundle.Inventory, time.Now()); err != nil {
		return result, err
	}
	rec, over, err := r.open(ctx, rules, &result)
	if err != nil || over {
		return result, err
	}
	r.run = result.Run
	rules.Targets = rec.Plan.Targets()
	rules.Mode, rules.Only, rules.All = rec.Rules.Mode, rec.Rules.Only, rec.Rules.All
	if rules.Mode == plan.Emergency && result.Resumed && !r.mayOverride(ctx, rec.Plan) {
		// Two people said so once, to another process: what it began ends, and the rest goes as every rule says.
		rules.Mode, rules.All = plan.Scheduled, false
		r.sayf("run %d began as an emergency, and nobody has signed for that here: it goes on with every rule kept", result.Run)
	}
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
	if result.Result == paused {
		return result, nil // it stays open
	}
	return result, r.close(ctx, &result)
}

// open joins the open run or begins one; over says that there is nothing to do.
func (r *Runner) open(ctx context.Context, rules plan.Rules, result *Result) (rec record, over bool, err error) {
	for {
		open, found, err := r.Store.OpenRun(ctx)
		if err != nil {
			return rec, false, err
		}
		if found {
			if err := json.Unmarshal(open.Plan, &rec); err != nil {
				return rec, false, hint.New(fmt.Errorf("reading the plan of run %d, which began at %s: %w", open.ID, open.Began.Format(time.RFC3339), err),
					"nothing is guessed: `fleetctl status` shows the servers; `fleetctl cancel --why TEXT` has this run begin nothing more")
			}
			if err := r.mayJoin(open, rules, rec); err != nil {
				return rec, false, err
			}
			result.Run, result.Resumed = open.ID, true
			r.sayf("run %d goes on: it finishes what it began; what else is due waits for the next rotate", open.ID)
			return rec, false, nil
		}
		now := time.Now()
		p, err := r.Plan(ctx, rules, now)
		if err != nil {
			return rec, false, err
		}
		if r.Expect != nil {
			if err := r.Expect(p); err != nil {
				return rec, false, err
			}
		}
		if len(p.Targets()) == 0 && !anyInFlight(p) {
			result.Result = "nothing due"
			return rec, true, nil
		}
		if pause, err := r.Store.Paused(ctx); err != nil || pause.On && !anyInFlight(p) {
			result.Result, result.Why = paused, pauseText(pause)
			return rec, true, err
		}
		if rules.Mode == plan.Emergency {
			if err := r.overrides(ctx, p); err != nil {
				return rec, false, err
			}
		}
		rec = record{p, rules}
		data, err := json.Marshal(rec)
		if err != nil {
			return rec, false, fmt.Errorf("encoding the plan: %w", err)
		}
		r.at("begin-run")
		result.Run, err = r.Store.BeginRun(ctx, data, now)
		if errors.Is(err, store.ErrRunOpen) {
			continue // somebody was faster: join theirs
		}
		if err != nil {
			return rec, false, err
		}
		r.at("run-begun")
		r.sayf("run %d: %d servers to rebuild, plan %.12s", result.Run, len(p.Targets()), p.Inputs)
		return rec, false, nil
	}
}

// mayJoin refuses to carry on what is not what was asked for, where that matters.
func (r *Runner) mayJoin(open store.Run, rules plan.Rules, rec record) error {
	mend := "`fleetctl cancel` has it begin nothing more; it ends when what is under way has ended"
	switch {
	case rules.Mode == plan.Emergency && rec.Rules.Mode != plan.Emergency:
		return hint.New(refusef(RunOpen, "run %d is open, and no emergency: joining it would keep every rule", open.ID), "%s", mend)
	case r.Expect != nil:
		return hint.New(refusef(RunOpen, "run %d is open: it has a plan of its own", open.ID), "%s", mend)
	}
	if not := r.notIn(rules, rec); not != "" {
		return hint.New(refusef(RunOpen, "run %d is open, and %s", open.ID, not), "give the order when it has ended; %s", mend)
	}
	return nil
}

// notIn says what of an order the open run does not do; "" for what is due by itself, which any run may leave to the next one.
func (r *Runner) notIn(rules plan.Rules, rec record) string {
	have := rec.Rules
	if have.Mode == plan.Emergency {
		return "" // everything
	}
	targets := rec.Plan.Targets()
	switch {
	case rules.Mode == plan.Upgrade && have.Mode != plan.Upgrade:
		return "is no upgrade"
	case rules.Retry && !have.Retry:
		return "does not retry what is quarantined"
	}
	for _, name := range rules.Lost {
		if !slices.Contains(have.Lost, name) {
			return "does not know that " + name + " is lost"
		}
	}
	asked := rules.Only
	if rules.Mode == plan.Everyone || rules.All {
		if have.Mode == plan.Everyone || have.All {
			return ""
		}
		for _, s := range r.Bundle.Inventory.Rebuilt() {
			asked = append(asked[:len(asked):len(asked)], s.Name)
		}
	}
	for _, name := range asked {
		if _, ok := targets[name]; !ok {
			return "does not rebuild " + name
		}
	}
	return ""
}

// MayBegin refuses an order that the open run, if there is one, does not hold: it is asked before a signed request is used up for it.
func (r *Runner) MayBegin(ctx context.Context, rules plan.Rules) error {
	open, found, err := r.Store.OpenRun(ctx)
	if err != nil || !found {
		return err
	}
	var rec record
	if err := json.Unmarshal(open.Plan, &rec); err != nil {
		return fmt.Errorf("reading the plan of run %d: %w", open.ID, err)
	}
	return r.mayJoin(open, rules, rec)
}

// overrides asks by whose leave an emergency breaks promises.
func (r *Runner) overrides(ctx context.Context, p plan.Plan) error {
	if r.Overrides == nil {
		return hint.New(refusef(Unapproved, "an emergency goes over floors, windows, caps and rates: nobody has said that two people want it"),
			"`fleetctl request make rotate-emergency`, signed by two people, and `fleetctl rotate --emergency --request FILE`")
	}
	return r.Overrides(ctx, p)
}

// mayOverride reports whether this process has the leave that an emergency takes.
func (r *Runner) mayOverride(ctx context.Context, p plan.Plan) bool {
	return r.overrides(ctx, p) == nil
}

// close ends the run in the store, unless another process has.
func (r *Runner) close(ctx context.Context, result *Result) error {
	if result.Result == "" {
		result.finish()
	}
	r.at("end-run")
	err := r.Store.EndRun(context.WithoutCancel(ctx), result.Run, result.Result, time.Now())
	if errors.Is(err, store.ErrStale) {
		return nil // it has ended, which is all that was wanted
	}
	return err
}

func pauseText(p store.Pause) string {
	return fmt.Sprintf("paused by %s at %s: %s", p.By, p.At.Format(time.RFC3339), p.Why)
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
	case result.Result == stopped || result.Result == "rolled back":
		return hint.New(fmt.Errorf("run %d: %s", result.Run, result.Why), "build, sign and `fleetctl image use` another release; this one is bad for good")
	case result.Result == "stuck":
		return hint.New(fmt.Errorf("run %d: nothing may start any more: %s", result.Run, strings.Join(result.Waiting, "; ")),
			"bring the region's other servers back first; a dead one is named with `fleetctl rotate --lost NAME`")
	}
	return nil
}

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

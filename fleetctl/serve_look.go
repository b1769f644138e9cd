package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"mayfly/fleetctl/alarm"
	"mayfly/fleetctl/grant"
	"mayfly/fleetctl/metrics"
	"mayfly/fleetctl/plan"
	"mayfly/fleetctl/rotate"
	"mayfly/internal/audit"
	"mayfly/inventory"
	"mayfly/inventory/store"
	"mayfly/policies/ledger"
	"mayfly/policies/trust"
	"mayfly/rebuild/release"
)

// Implementation constants of looking.
const (
	lookInterval = 10 * time.Second
	lookLimit    = 20 * time.Second
	endsOverlap  = 2 * time.Minute // how far back ends of rotations are read again: controllers' clocks may differ by that much
)

// lookout looks at the fleet again and again, says what people have to hear, and counts. It changes nothing.
type lookout struct {
	d       state
	store   store.Store
	policy  *policy
	metrics *metrics.Metrics
	desk    *grant.Desk
	log     *slog.Logger

	book        alarm.Book
	statement   *release.Statement // of the release in use, verified
	storeSince  time.Time          // when the store last stopped answering; zero: it does
	storeError  string
	ledgerSince time.Time // when the witnesses fell behind
	ledgerAt    uint64    // what they had cosigned then
	since       time.Time // ends of rotations before are counted
	ends        map[string]time.Time

	mu       sync.Mutex // guards the rest, which the schedule writes
	next     time.Time
	failures int
}

// loop looks until ctx ends.
func (w *lookout) loop(ctx context.Context) {
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	w.since, w.ends = time.Now(), map[string]time.Time{}
	for {
		w.once(ctx, time.Now())
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// scheduled hears what came of a scheduled rotation.
func (w *lookout) scheduled(result string, next time.Time, failures int) {
	w.metrics.Scheduled(result)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next, w.failures = next, failures
}

// once looks once.
func (w *lookout) once(ctx context.Context, now time.Time) {
	limited, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	began := time.Now()
	r, s, err := w.look(limited, now)
	if ctx.Err() != nil {
		return
	}
	w.metrics.Looked(time.Since(began), err)
	if err != nil {
		if w.storeSince.IsZero() {
			w.storeSince = now
		}
		w.storeError = err.Error()
		s = alarm.State{}
	} else {
		w.storeSince, w.storeError = time.Time{}, ""
	}
	w.mu.Lock()
	r.Next, r.Failures = w.next, w.failures
	w.mu.Unlock()
	s.StoreSince, s.StoreError, s.ScheduleFailures = w.storeSince, w.storeError, r.Failures
	all := alarm.Evaluate(s, now)
	if err != nil { // of what cannot be read now, what was said last still holds
		all = append(all, w.book.Open()...)
	}
	begun, over := w.book.Update(all, now)
	for _, a := range begun {
		level := slog.LevelWarn
		if a.Severity == alarm.Critical {
			level = slog.LevelError
		}
		w.log.Log(ctx, level, "alarm", "kind", a.Kind, "severity", a.Severity, "subject", a.Subject, "detail", a.Detail)
		w.metrics.Alarmed(string(a.Kind))
	}
	for _, a := range over {
		w.log.Info("alarm is over", "kind", a.Kind, "subject", a.Subject, "since", a.Since)
	}
	if err == nil {
		r.Alarms = w.book.Open()
		w.metrics.Set(r)
	}
}

// ground is what plans rest on now, read from the store.
func (w *lookout) ground(ctx context.Context, now time.Time) (g grant.Ground, known rotate.Known, servers []store.Server, err error) {
	t, b := w.policy.inForce()
	if servers, err = w.store.Servers(ctx); err != nil {
		return g, known, nil, err
	}
	if known, err = rotate.ReadKnown(ctx, w.store); err != nil {
		return g, known, nil, err
	}
	known.Here = here(b.Inventory)
	version := known.Use.Version
	if version == 0 {
		if version, err = w.d.current(); err != nil {
			return g, known, nil, err
		}
	}
	g.Fleet = b.Inventory
	g.Snapshot, g.Health = rotate.Snapshot(b, version, servers)
	known.Into(&g.Snapshot, servers, zones(b.Policy.Rotation), now)
	g.Rules = rotate.Rules(b.Inventory, b.Policy.Rotation, w.released(t, version, now))
	return g, known, servers, nil
}

// released is the statement of the release in use, which may end lives sooner than the policy; nil if there is none to be believed.
func (w *lookout) released(t *trust.Trust, version uint64, now time.Time) *release.Statement {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.statement != nil && w.statement.Version == version {
		return w.statement
	}
	w.statement = nil
	if version > 0 {
		if s, _, err := releaseStatement(t, filepath.Join(w.d.releases(), strconv.FormatUint(version, 10)), now); err == nil && s.Version == version {
			w.statement = s
		}
	}
	return w.statement
}

func (w *lookout) look(ctx context.Context, now time.Time) (r metrics.Reading, s alarm.State, err error) {
	t, b := w.policy.inForce()
	g, known, servers, err := w.ground(ctx, now)
	if err != nil {
		return r, s, err
	}
	r = metrics.Reading{At: now, Policy: b.Version, PolicyExpires: b.Policy.Expires, Release: g.Snapshot.Release, Good: known.Good(), Paused: known.Pause.On}
	began := time.Now()
	r.Plan, s.Refusals = plan.Make(g.Snapshot, g.Rules, g.Health, now)
	r.PlanTook, r.Refused = time.Since(began), len(s.Refusals) > 0
	if r.Refused { // that is when people have to hear of floors and deadlines
		r.Plan.Regions = plan.Totals(g.Snapshot, g.Rules, g.Health, now)
	}
	s.Danger = plan.Danger(g.Snapshot, g.Rules, g.Health, now, b.Policy.Rotation.Schedule.Alert.Std())
	s.Regions, s.Train = r.Plan.Regions, r.Plan.Train
	if known.Pause.On {
		s.PausedSince, s.PausedBy = known.Pause.At, known.Pause.By
	}
	for _, m := range known.Marks {
		if m.Mark == store.Bad {
			r.Bad++
			s.Bad = append(s.Bad, alarm.Bad{Version: m.Version, Why: m.Why, At: m.At})
		}
	}
	lives := map[string]store.Server{}
	for _, x := range servers {
		lives[x.Name] = x
	}
	for _, x := range g.Snapshot.Servers {
		c := metrics.Server{Region: x.Region, State: x.State, Age: -1}
		if at := lives[x.Name].BootedAt; !at.IsZero() && !x.Deadline.IsZero() && (x.State == inventory.Serving || x.State == inventory.Draining) {
			c.Age, c.Left = max(now.Sub(at), 0), x.Deadline.Sub(now)
		}
		r.Servers = append(r.Servers, c)
		if x.State == inventory.Quarantined {
			s.Quarantined = append(s.Quarantined, alarm.Quarantined{Server: x.Name, Cause: lives[x.Name].Cause})
		}
	}
	run, open, err := w.store.OpenRun(ctx)
	if err != nil {
		return r, s, err
	}
	r.Run, r.RunBegan, r.Cancelled = open, run.Began, open && !run.Cancelled.IsZero()
	claims, err := w.store.Claims(ctx, now)
	if err != nil {
		return r, s, err
	}
	for _, c := range claims {
		if _, ok := lives[c.Server]; ok {
			r.Claims++
		}
	}
	out, err := w.desk.Out(ctx)
	if err != nil {
		return r, s, err
	}
	r.HostsOut = len(out)
	for _, l := range out {
		if l.Overdue {
			r.HostsLate++
			s.Overdue = append(s.Overdue, l.Host)
		}
	}
	r.LedgerSize, r.LedgerKnown, err = w.d.ledgerSizes(t)
	if err != nil {
		return r, s, err
	}
	s.LedgerSince = w.behind(r.LedgerSize, r.LedgerKnown, now)
	return r, s, w.countEnds(ctx)
}

// behind is since when the witnesses have not cosigned anything although there is more; zero when they have cosigned all, or nobody asks them.
func (w *lookout) behind(size, cosigned uint64, now time.Time) time.Time {
	if _, b := w.policy.inForce(); size <= cosigned || len(b.Inventory.Witnesses) == 0 {
		w.ledgerSince = time.Time{}
	} else if w.ledgerSince.IsZero() || cosigned != w.ledgerAt {
		w.ledgerSince, w.ledgerAt = now, cosigned
	}
	return w.ledgerSince
}

// ledgerSizes reads how long the public ledger is, and how much of it the witnesses have cosigned. One that is not there is empty.
func (d state) ledgerSizes(t *trust.Trust) (size, cosigned uint64, err error) {
	keys, err := ledger.KeysOf(t)
	if err != nil {
		return 0, 0, err
	}
	read := func(name string) (uint64, error) {
		data, err := audit.Directory(d.ledger())(name, audit.MaxCheckpoint)
		if errors.Is(err, fs.ErrNotExist) {
			return 0, nil
		}
		if err != nil {
			return 0, fmt.Errorf("reading the ledger: %w", err)
		}
		for _, k := range keys.Ledger {
			if c, _, err := audit.OpenCheckpoint(data, k); err == nil {
				return c.Size, nil
			}
		}
		return 0, nil // somebody else's: `fleetctl ledger verify` says so
	}
	if size, err = read(audit.CheckpointFile); err != nil {
		return 0, 0, err
	}
	cosigned, err = read(audit.WitnessedFile)
	return size, cosigned, err
}

// countEnds counts the rotations that ended since the last look, each once.
func (w *lookout) countEnds(ctx context.Context) error {
	ends, err := w.store.Outcomes(ctx, "", w.since.Add(-endsOverlap))
	if err != nil {
		return err
	}
	for _, o := range ends {
		id := o.Server + " " + strconv.FormatUint(o.Epoch, 10)
		if _, seen := w.ends[id]; seen {
			continue
		}
		w.ends[id] = o.At
		how := metrics.Quarantined
		if o.Served {
			how = metrics.Served
		}
		w.metrics.Ended(how, o.Attempts, o.Failed)
		if o.At.After(w.since) {
			w.since = o.At
		}
	}
	for id, at := range w.ends {
		if at.Before(w.since.Add(-2 * endsOverlap)) {
			delete(w.ends, id)
		}
	}
	return nil
}

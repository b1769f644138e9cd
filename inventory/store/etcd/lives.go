package etcd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"mayfly/inventory"
	"mayfly/inventory/store"
)

// Bounds.
const (
	maxEvents   = 10_000 // of one call of Events
	syncAtOnce  = 40     // servers that are added in one transaction; etcd takes 128 operations
	reportEvery = 4 * time.Second
)

// Sync adds the fleet's servers that the store does not know yet, as New, and keeps all others.
func (s *Store) Sync(ctx context.Context, fleet inventory.Fleet, now time.Time) error {
	have := map[string]bool{}
	_, err := s.each(ctx, s.key(keyServer), 0, func(kv *mvccpb.KeyValue) error {
		have[string(kv.Key)] = true
		return nil
	})
	if err != nil {
		return err
	}
	var missing []string
	for _, x := range fleet.Rebuilt() {
		if !have[s.key(keyServer, x.Name)] {
			missing = append(missing, x.Name)
		}
	}
	for len(missing) > 0 {
		some := missing[:min(len(missing), syncAtOnce)]
		missing = missing[len(some):]
		keys := []string{s.key(keyGuard)}
		for _, name := range some {
			keys = append(keys, s.key(keyServer, name))
		}
		err := s.states(ctx, "", keys, func(c *change) error {
			g, err := c.guard()
			if err != nil {
				return err
			}
			for _, name := range some {
				if c.read[s.key(keyServer, name)] == nil {
					c.put(s.key(keyServer, name), record{Server: store.Server{Name: name, State: inventory.New, Since: now.UTC()}})
				}
			}
			if len(c.ops) > 0 {
				c.put(s.key(keyGuard), g)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("adding servers: %w", err)
		}
	}
	return nil
}

// states is change for what changes a state: one at a time in this process.
func (s *Store) states(ctx context.Context, server string, keys []string, f func(*change) error) error {
	select {
	case s.moving <- struct{}{}:
		defer func() { <-s.moving }()
	case <-ctx.Done():
		return ctx.Err()
	}
	_, err := s.change(ctx, server, keys, f)
	return err
}

// guard reads the guard.
func (c *change) guard() (g guard, err error) {
	_, err = c.has(c.s.key(keyGuard), &g)
	return g, err
}

// record reads a server that was read for the change.
func (c *change) record(name string) (record, error) {
	var r record
	ok, err := c.has(c.s.key(keyServer, name), &r)
	if err == nil && !ok {
		err = fmt.Errorf("server %q: %w", name, store.ErrUnknown)
	}
	return r, err
}

func (c *change) save(r record) { c.put(c.s.key(keyServer, r.Name), r) }

// Servers returns all servers by name.
func (s *Store) Servers(ctx context.Context) ([]store.Server, error) {
	all, _, _, err := s.load(ctx, 0)
	if err != nil {
		return nil, fmt.Errorf("reading servers: %w", err)
	}
	return all, nil
}

// load reads all servers at a revision, or now with 0, and returns them with that revision and the guard's.
func (s *Store) load(ctx context.Context, at int64) (all []store.Server, rev, guarded int64, err error) {
	var decoding sync.WaitGroup
	var lists []*[]live
	var faults []*error
	if at, guarded, err = s.guardAt(ctx, at); err != nil {
		return nil, 0, 0, err
	}
	var mu sync.Mutex // guards lists and faults
	take := func(kvs []*mvccpb.KeyValue) error {
		list, fault := new([]live), new(error)
		mu.Lock()
		lists, faults = append(lists, list), append(faults, fault)
		mu.Unlock()
		decoding.Go(func() { *list, *fault = s.lives(kvs) }) // while the next page comes
		return nil
	}
	// Both at the same revision, so they are of one moment.
	var reading sync.WaitGroup
	var missed error
	reading.Go(func() { _, missed = s.pages(ctx, s.key(keyHealth), at, take) })
	_, err = s.pages(ctx, s.key(keyServer), at, take)
	reading.Wait()
	rev, err = at, errors.Join(err, missed)
	decoding.Wait()
	for _, f := range faults {
		err = errors.Join(err, *f)
	}
	if err != nil {
		return nil, 0, 0, err
	}
	reports := map[string]report{}
	for _, list := range lists {
		for _, l := range *list {
			if l.kind == keyHealth {
				reports[l.name] = l.report
			}
		}
	}
	for _, list := range lists { // those of servers are in their order
		for _, l := range *list {
			if l.kind == keyServer {
				all = append(all, withReport(l.server, reports[l.name]))
			}
		}
	}
	return all, rev, guarded, nil
}

// guardAt is the guard's revision at a revision of the store, or now with 0, and that one.
func (s *Store) guardAt(ctx context.Context, at int64) (rev, guarded int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	r, err := s.client.Get(ctx, s.key(keyGuard), clientv3.WithRev(at))
	if err != nil {
		return 0, 0, unreachable(err)
	}
	if len(r.Kvs) > 0 {
		guarded = r.Kvs[0].ModRevision
	}
	if at == 0 {
		at = r.Header.Revision
	}
	return at, guarded, nil
}

// live is one key below keyLive.
type live struct {
	kind, name string
	mod        int64
	report     report
	server     store.Server
}

func (s *shared) lives(kvs []*mvccpb.KeyValue) ([]live, error) {
	list := make([]live, 0, len(kvs))
	for _, kv := range kvs {
		l, err := s.live(kv)
		if err != nil {
			return nil, err
		}
		list = append(list, l)
	}
	return list, nil
}

func (s *shared) live(kv *mvccpb.KeyValue) (l live, err error) {
	l.mod = kv.ModRevision
	if name, ok := bytes.CutPrefix(kv.Key, []byte(s.key(keyHealth))); ok {
		l.kind, l.name = keyHealth, string(name)
		err = decode(kv, &l.report)
		utc(&l.report.At)
		return l, err
	}
	if name, ok := bytes.CutPrefix(kv.Key, []byte(s.key(keyServer))); ok {
		var r record
		l.kind, l.name = keyServer, string(name)
		err = decode(kv, &r)
		l.server = inUTC(r.Server)
		return l, err
	}
	l.kind = keyGuard
	return l, nil
}

func inUTC(v store.Server) store.Server {
	utc(&v.Since, &v.BootedAt, &v.JoinedAt, &v.Deadline, &v.HeldUntil)
	return v
}

// withReport is a server with its report, if that is of its present life.
func withReport(v store.Server, r report) store.Server {
	v.Health, v.HealthAt = nil, time.Time{}
	if r.Epoch == v.Epoch && !r.At.IsZero() {
		v.Health, v.HealthAt = r.Health, r.At
	}
	return v
}

// Server returns one server, or store.ErrUnknown.
func (s *Store) Server(ctx context.Context, name string) (store.Server, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	c, err := s.begin(ctx, []string{s.key(keyServer, name), s.key(keyHealth, name)})
	if err != nil {
		return store.Server{}, fmt.Errorf("reading server %q: %w", name, err)
	}
	have, err := c.record(name)
	if err != nil {
		return store.Server{}, err
	}
	var r report
	if _, err := c.has(s.key(keyHealth, name), &r); err != nil {
		return store.Server{}, err
	}
	utc(&r.At)
	return withReport(inUTC(have.Server), r), nil
}

// set changes one life, which must be the current one.
func (s *Store) set(ctx context.Context, name string, epoch uint64, f func(r *record) error) error {
	_, err := s.change(ctx, name, []string{s.key(keyServer, name)}, func(c *change) error {
		r, err := c.record(name)
		if err != nil {
			return err
		}
		if r.Epoch != epoch {
			return stale(r, epoch, "")
		}
		if err := f(&r); err != nil {
			return err
		}
		c.save(r)
		return nil
	})
	return err
}

// stale explains why a server is not what the caller believed.
func stale(have record, epoch uint64, from inventory.State) error {
	if from == "" {
		return fmt.Errorf("server %q is in life %d, not %d: %w", have.Name, have.Epoch, epoch, store.ErrStale)
	}
	return fmt.Errorf("server %q is %s in life %d, not %s in life %d: %w", have.Name, have.State, have.Epoch, from, epoch, store.ErrStale)
}

// SetDrained records that a life has drained; forced, if peers were left when the bound passed.
func (s *Store) SetDrained(ctx context.Context, name string, epoch uint64, forced bool) error {
	return s.set(ctx, name, epoch, func(r *record) error {
		r.Drained, r.DrainForced = true, forced
		return nil
	})
}

// SetRelease records which release a life boots.
func (s *Store) SetRelease(ctx context.Context, name string, epoch uint64, release string) error {
	return s.set(ctx, name, epoch, func(r *record) error {
		r.Release = release
		return nil
	})
}

// reports are the reports of health that this process wrote last: one that says the same again soon is not written.
type reports struct {
	mu   sync.Mutex
	last map[string]written
}

type written struct {
	report
	mod int64 // of the server's record then
}

// SetHealth keeps the newest health report of a life. One that is as the last one and comes within reportEvery is not written.
func (s *Store) SetHealth(ctx context.Context, name string, epoch uint64, health []byte, at time.Time) error {
	if s.readOnly {
		return errReadOnly
	}
	s.reports.mu.Lock()
	last, known := s.reports.last[name]
	s.reports.mu.Unlock()
	now := report{Epoch: epoch, At: at.UTC(), Health: health}
	if known && last.Epoch == epoch && s.fence == nil {
		if d := at.Sub(last.At); d >= 0 && d < reportEvery && bytes.Equal(last.Health, health) {
			return nil
		}
		if ok, err := s.report(ctx, name, now, last.mod); ok || err != nil {
			return err
		}
	}
	var mod int64
	_, err := s.change(ctx, name, []string{s.key(keyServer, name)}, func(c *change) error {
		r, err := c.record(name)
		if err != nil {
			return err
		}
		if r.Epoch != epoch {
			return stale(r, epoch, "")
		}
		mod = c.read[s.key(keyServer, name)].ModRevision
		c.put(s.key(keyHealth, name), now)
		return nil
	})
	if err == nil {
		s.reported(name, written{now, mod})
	}
	return err
}

// report writes a report in one step, if the server's record is as it was when the last one was written.
func (s *Store) report(ctx context.Context, name string, r report, mod int64) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	data, err := json.Marshal(r)
	if err != nil {
		return false, err
	}
	answer, err := s.client.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(s.key(keyServer, name)), "=", mod)).
		Then(clientv3.OpPut(s.key(keyHealth, name), string(data))).Commit()
	if err != nil {
		return false, unsure(err)
	}
	if answer.Succeeded {
		s.reported(name, written{r, mod})
	}
	return answer.Succeeded, nil
}

func (s *shared) reported(name string, w written) {
	s.reports.mu.Lock()
	defer s.reports.mu.Unlock()
	if s.reports.last == nil {
		s.reports.last = map[string]written{}
	}
	s.reports.last[name] = w
}

package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"mayfly/inventory/store"
)

const maxJournal = 1000 // records of one server that one call of Journal returns

// run is a run as it is kept: its plan lies elsewhere.
type run struct {
	store.Run
	Parts parts `json:"parts"`
}

// Record writes one record.
func (s *Store) Record(ctx context.Context, e store.Entry) error {
	run := s.runKey(e.Run)
	_, err := s.change(ctx, e.Server, []string{run, s.key(keyServer, e.Server)}, func(c *change) error {
		if c.read[run] == nil {
			return fmt.Errorf("there is no run %d", e.Run)
		}
		if _, err := c.record(e.Server); err != nil {
			return err
		}
		n, err := s.last(c.ctx, s.key(keyJournal, e.Server, "/"))
		if err != nil {
			return err
		}
		e.ID, e.At = n+1, e.At.UTC()
		key := s.lifeKey(keyJournal, e.Server, uint64(e.ID))
		c.cmps = c.cmps[:0:0] // neither run nor server is ever removed, and what they hold does not matter
		if s.fence != nil && s.fence.Server == e.Server {
			c.cmps = append(c.cmps, clientv3.Compare(clientv3.ModRevision(s.key(keyClaim, e.Server)), "=", int64(s.fence.Token)))
		}
		c.cmps = append(c.cmps, absent(key))
		c.put(key, e)
		return nil
	})
	if err != nil {
		return fmt.Errorf("recording %s of server %q in the journal: %w", e.Step, e.Server, err)
	}
	return nil
}

// Journal returns the newest records of a server, oldest first, a bounded number.
func (s *Store) Journal(ctx context.Context, server string) ([]store.Entry, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	r, err := s.client.Get(ctx, s.key(keyJournal, server, "/"), clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend), clientv3.WithLimit(maxJournal))
	if err != nil {
		return nil, fmt.Errorf("reading the journal: %w", unreachable(err))
	}
	slices.Reverse(r.Kvs)
	return values[store.Entry](r.Kvs, entryInUTC)
}

func entryInUTC(e *store.Entry) { utc(&e.At) }

// BeginRun writes a plan down before its first step.
func (s *Store) BeginRun(ctx context.Context, plan []byte, now time.Time) (id int64, err error) {
	if s.readOnly {
		return 0, errReadOnly
	}
	p, err := s.putPlan(ctx, plan)
	if err == nil {
		_, err = s.change(ctx, "", []string{s.key(keyOpen)}, func(c *change) error {
			if c.read[s.key(keyOpen)] != nil {
				return store.ErrRunOpen
			}
			last, err := s.last(c.ctx, s.key(keyRun))
			if err != nil {
				return err
			}
			id = last + 1
			c.cmps = append(c.cmps, absent(s.runKey(id)))
			c.put(s.runKey(id), run{store.Run{ID: id, Began: now.UTC()}, p})
			c.put(s.key(keyOpen), id)
			return nil
		})
	}
	if err != nil {
		if errors.Is(err, store.ErrRunOpen) {
			s.dropPlan(ctx, p) // of what did not begin for sure
		}
		return 0, fmt.Errorf("beginning a run: %w", err)
	}
	return id, nil
}

// OpenRun returns the run that is not finished, if there is one.
func (s *Store) OpenRun(ctx context.Context) (store.Run, bool, error) {
	r, ok, err := s.named(ctx, keyOpen)
	if err == nil && ok && !r.Ended.IsZero() {
		r, ok, err = s.named(ctx, keyOpen) // it ended between the two reads
		ok = ok && r.Ended.IsZero()
	}
	if err != nil {
		return store.Run{}, false, fmt.Errorf("reading the open run: %w", err)
	}
	if !ok {
		return store.Run{}, false, nil
	}
	return r, true, nil
}

// LastRun returns the run that ended last, if there is one.
func (s *Store) LastRun(ctx context.Context) (store.Run, bool, error) {
	r, ok, err := s.named(ctx, keyLast)
	if err != nil {
		return store.Run{}, false, fmt.Errorf("reading the last run: %w", err)
	}
	return r, ok, nil
}

// named reads the run whose number a key holds.
func (s *Store) named(ctx context.Context, key string) (store.Run, bool, error) {
	var id int64
	ok, err := s.get(ctx, s.key(key), &id)
	if err != nil || !ok {
		return store.Run{}, false, err
	}
	var r run
	if ok, err = s.get(ctx, s.runKey(id), &r); err != nil || !ok {
		return store.Run{}, false, errors.Join(err, fmt.Errorf("run %d is gone", id))
	}
	runInUTC(&r)
	if r.Plan, err = s.plan(ctx, r.Parts); err != nil {
		return store.Run{}, false, fmt.Errorf("run %d: %w", id, err)
	}
	return r.Run, true, nil
}

func runInUTC(r *run) { utc(&r.Began, &r.Ended, &r.Cancelled) }

// runChange changes a run that is open.
func (s *Store) runChange(ctx context.Context, id int64, f func(c *change, r *run) error) error {
	key := s.runKey(id)
	_, err := s.change(ctx, "", []string{key, s.key(keyOpen)}, func(c *change) error {
		var r run
		ok, err := c.has(key, &r)
		if err != nil {
			return err
		}
		if !ok || !r.Ended.IsZero() {
			return store.ErrStale
		}
		if err := f(c, &r); err != nil {
			return err
		}
		c.put(key, r)
		return nil
	})
	return err
}

// EndRun closes a run with its result. A run ends once.
func (s *Store) EndRun(ctx context.Context, id int64, result string, now time.Time) error {
	err := s.runChange(ctx, id, func(c *change, r *run) error {
		r.Ended, r.Result = now.UTC(), result
		c.remove(s.key(keyOpen))
		c.put(s.key(keyLast), id)
		return nil
	})
	if err != nil {
		return fmt.Errorf("ending run %d: %w", id, err)
	}
	return nil
}

// CancelRun has an open run begin nothing more.
func (s *Store) CancelRun(ctx context.Context, id int64, by string, now time.Time) error {
	err := s.runChange(ctx, id, func(_ *change, r *run) error {
		if !r.Cancelled.IsZero() {
			return store.ErrStale
		}
		r.Cancelled, r.By = now.UTC(), by
		return nil
	})
	if err != nil {
		return fmt.Errorf("cancelling run %d: %w", id, err)
	}
	return nil
}

// EndRotation records how a rotation ended, once.
func (s *Store) EndRotation(ctx context.Context, o store.Outcome) error {
	key := s.lifeKey(keyOutcome, o.Server, o.Epoch)
	_, err := s.change(ctx, o.Server, []string{key, s.key(keyServer, o.Server)}, func(c *change) error {
		if _, err := c.record(o.Server); err != nil {
			return err
		}
		if c.read[key] != nil {
			return store.ErrEnded
		}
		o.At = o.At.UTC()
		c.put(key, o)
		return nil
	})
	if err != nil {
		return fmt.Errorf("ending the rotation of server %q, life %d: %w", o.Server, o.Epoch, err)
	}
	return nil
}

// Outcomes returns those at since or later, oldest first; of a release, or of all with "".
func (s *Store) Outcomes(ctx context.Context, release string, since time.Time) ([]store.Outcome, error) {
	var all []store.Outcome
	_, err := s.each(ctx, s.key(keyOutcome), 0, func(kv *mvccpb.KeyValue) error {
		var o store.Outcome
		if err := decode(kv, &o); err != nil {
			return err
		}
		utc(&o.At)
		if !o.At.Before(since) && (release == "" || o.Release == release) {
			all = append(all, o)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading ends of rotations: %w", err)
	}
	slices.SortStableFunc(all, func(a, b store.Outcome) int {
		if c := a.At.Compare(b.At); c != 0 {
			return c
		}
		if c := strings.Compare(a.Server, b.Server); c != 0 {
			return c
		}
		return int(int64(a.Epoch) - int64(b.Epoch))
	})
	return all, nil
}

// SetPause says whether rotations begin.
func (s *Store) SetPause(ctx context.Context, p store.Pause) error {
	utc(&p.At)
	_, err := s.change(ctx, "", nil, func(c *change) error {
		c.put(s.key(keyPause), p)
		return nil
	})
	if err != nil {
		return fmt.Errorf("recording the pause: %w", err)
	}
	return nil
}

// Paused returns what SetPause said last.
func (s *Store) Paused(ctx context.Context) (p store.Pause, err error) {
	if _, err = s.get(ctx, s.key(keyPause), &p); err != nil {
		return store.Pause{}, fmt.Errorf("reading the pause: %w", err)
	}
	utc(&p.At)
	return p, nil
}

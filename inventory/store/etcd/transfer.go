package etcd

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"mayfly/inventory/store"
)

// importAtOnce bounds one transaction of an import, which etcd bounds as well.
const (
	importAtOnce = 100
	importBytes  = 512 << 10
)

// Export writes all that the store holds, as it is at one revision.
func (s *Store) Export(ctx context.Context, w io.Writer) error {
	c, err := s.content(ctx)
	if err != nil {
		return fmt.Errorf("exporting the store: %w", err)
	}
	return c.Write(w)
}

// list reads what is below a prefix at a revision.
func list[T any](ctx context.Context, s *Store, prefix string, at int64, into *[]T, mend func(*T)) error {
	_, err := s.each(ctx, s.key(prefix), at, func(kv *mvccpb.KeyValue) error {
		var v T
		if err := decode(kv, &v); err != nil {
			return err
		}
		mend(&v)
		*into = append(*into, v)
		return nil
	})
	return err
}

// ofServers is byServer in the order of their names.
func ofServers[T any](ctx context.Context, s *Store, kind string, at int64, into *[]store.Of[T], mend func(*T)) error {
	all, err := byServer(ctx, s, kind, at, mend)
	for name, v := range all {
		*into = append(*into, store.Of[T]{Server: name, Value: v})
	}
	slices.SortFunc(*into, func(a, b store.Of[T]) int { return strings.Compare(a.Server, b.Server) })
	return err
}

func (s *Store) content(ctx context.Context) (*store.Content, error) {
	c := &store.Content{}
	one, err := s.begin(ctx, []string{s.key(keyPolicy), s.key(keyPause), s.key(keyUse)})
	if err != nil {
		return nil, err
	}
	at := one.rev
	_, err = one.has(s.key(keyPolicy), &c.Policy)
	_, perr := one.has(s.key(keyPause), &c.Pause)
	var u store.Use
	used, uerr := one.has(s.key(keyUse), &u)
	if used {
		c.Use = &u
		utc(&u.At)
	}
	utc(&c.Pause.At)
	var runs []run
	current, lerr := s.contentLives(ctx, at, c)
	err = errors.Join(err, perr, uerr, lerr,
		list(ctx, s, keyMark, at, &c.Marks, func(m *store.Mark) { utc(&m.At) }),
		list(ctx, s, keyEvent, at, &c.Events, func(e *store.Event) { utc(&e.At) }),
		list(ctx, s, keyTicket, at, &c.Tickets, func(t *store.Ticket) {
			utc(&t.NotAfter, &t.Used)
			t.Revoked = t.Used.IsZero() && current[t.Server] != hex.EncodeToString(t.Hash)
		}),
		list(ctx, s, keyRevoked, at, &c.Revoked, func(e *store.Ended) { utc(&e.At) }),
		list(ctx, s, keyFailure, at, &c.Failures, func(f *store.Failure) { utc(&f.At) }),
		ofServers(ctx, s, keyDrain, at, &c.Drains, func(*store.DrainOrder) {}),
		ofServers(ctx, s, keyRestart, at, &c.Restarts, restartInUTC),
		ofServers(ctx, s, keyExtension, at, &c.Extensions, func(*store.Extension) {}),
		list(ctx, s, keyRun, at, &runs, runInUTC),
		list(ctx, s, keyJournal, at, &c.Journal, func(e *store.Entry) { entryInUTC(e); e.ID = 0 }),
		list(ctx, s, keyOutcome, at, &c.Outcomes, func(o *store.Outcome) { utc(&o.At) }))
	if err != nil {
		return nil, err
	}
	for _, r := range runs {
		if r.Plan, err = s.plan(ctx, r.Parts); err != nil {
			return nil, fmt.Errorf("run %d: %w", r.ID, err)
		}
		c.Runs = append(c.Runs, r.Run)
	}
	c.Logins, err = s.logins(ctx, time.Time{}, at)
	slices.SortFunc(c.Tickets, func(a, b store.Ticket) int {
		if d := strings.Compare(a.Server, b.Server); d != 0 {
			return d
		}
		if a.Epoch != b.Epoch {
			return int(int64(a.Epoch) - int64(b.Epoch))
		}
		return strings.Compare(string(a.Hash), string(b.Hash))
	})
	return c, err
}

// contentLives reads servers with their reports, and returns each one's ticket that may still be used.
func (s *Store) contentLives(ctx context.Context, at int64, c *store.Content) (map[string]string, error) {
	reports, err := byServer(ctx, s, keyHealth, at, func(r *report) { utc(&r.At) })
	if err != nil {
		return nil, err
	}
	tickets := map[string]string{}
	_, err = s.each(ctx, s.key(keyServer), at, func(kv *mvccpb.KeyValue) error {
		var r record
		if err := decode(kv, &r); err != nil {
			return err
		}
		v := withReport(inUTC(r.Server), reports[r.Name])
		tickets[r.Name] = r.Ticket
		c.Servers = append(c.Servers, store.Record{Server: v, Floor: r.Floor, Report: v.Health, ReportAt: v.HealthAt})
		return nil
	})
	return tickets, err
}

// empty removes all that is below the prefix, and leaves an empty store.
func (s *Store) empty(ctx context.Context) error {
	if _, err := s.client.Delete(ctx, s.prefix, clientv3.WithPrefix()); err != nil {
		return unsure(err)
	}
	_, err := s.client.Txn(ctx).If(absent(s.key(keyVersion))).Then(clientv3.OpPut(s.key(keyVersion), layout)).Commit()
	return unsure(err)
}

// Import fills an empty store. While it runs, and if it does not end, a key says that nothing in the store counts.
func (s *Store) Import(ctx context.Context, r io.Reader) error {
	if s.readOnly {
		return errReadOnly
	}
	c, err := store.ReadContent(r)
	if err != nil {
		return fmt.Errorf("importing: %w", err)
	}
	c.RevokeTickets()
	if err := s.fill(ctx, c); err != nil {
		return fmt.Errorf("importing: %w", err)
	}
	return nil
}

// filler collects puts.
type filler struct {
	ctx   context.Context
	s     *Store
	ops   []clientv3.Op
	bytes int
	err   error
}

func (f *filler) put(key string, v any) {
	data, err := json.Marshal(v)
	if f.err == nil {
		f.err = err
	}
	if f.bytes+len(data) > importBytes || len(f.ops) == importAtOnce {
		f.flush()
	}
	f.ops, f.bytes = append(f.ops, clientv3.OpPut(key, string(data))), f.bytes+len(key)+len(data)
}

func (f *filler) flush() {
	if f.err == nil && len(f.ops) > 0 {
		ctx, cancel := context.WithTimeout(f.ctx, callLimit)
		_, err := f.s.client.Txn(ctx).Then(f.ops...).Commit()
		cancel()
		f.err = unsure(err)
	}
	f.ops, f.bytes = nil, 0
}

func (s *Store) fill(ctx context.Context, c *store.Content) error {
	begin, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	r, err := s.client.Txn(begin).If(clientv3.Compare(clientv3.Value(s.key(keyVersion)), "=", layout)).
		Then(clientv3.OpGet(s.prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())).Commit()
	if err != nil {
		return unreachable(err)
	}
	if !r.Succeeded || r.Responses[0].GetResponseRange().Count != 1 {
		return store.ErrNotEmpty
	}
	started, err := s.client.Txn(begin).If(absent(s.key(keyImporting)), absent(s.key(keyGuard)), absent(s.key(keyOpen)), absent(s.key(keyPolicy))).
		Then(clientv3.OpPut(s.key(keyImporting), "1")).Commit()
	if err != nil {
		return unsure(err)
	}
	if !started.Succeeded {
		return store.ErrNotEmpty
	}
	f := &filler{ctx: ctx, s: s}
	f.content(c)
	f.flush()
	if f.err != nil {
		return f.err // what is there does not count: the key keyImporting says so
	}
	end, cancelEnd := context.WithTimeout(ctx, callLimit)
	defer cancelEnd()
	_, err = s.client.Delete(end, s.key(keyImporting))
	return unsure(err)
}

func (f *filler) content(c *store.Content) {
	s := f.s
	if c.Policy > 0 {
		f.put(s.key(keyPolicy), c.Policy)
	}
	if c.Pause != (store.Pause{}) {
		f.put(s.key(keyPause), c.Pause)
	}
	if c.Use != nil {
		f.put(s.key(keyUse), c.Use)
	}
	for _, m := range c.Marks {
		f.put(s.markKey(m.Version, m.Digest), m)
	}
	var g guard
	for _, e := range c.Events {
		f.put(s.eventKey(e.ID), e)
		g.Event = e.ID
	}
	f.put(s.key(keyGuard), g)
	for _, v := range c.Servers {
		f.put(s.key(keyServer, v.Name), record{Server: v.Server, Floor: v.Floor}) // no ticket: all are used or revoked
		if !v.ReportAt.IsZero() {
			f.put(s.key(keyHealth, v.Name), report{v.Epoch, v.ReportAt, v.Report})
		}
	}
	for _, t := range c.Tickets {
		f.put(s.ticketKey(t.Hash), t)
	}
	for _, e := range c.Revoked {
		f.put(s.lifeKey(keyRevoked, e.Server, e.Epoch), e)
	}
	for _, x := range c.Failures {
		f.put(s.lifeKey(keyFailure, x.Server, x.Epoch), x)
	}
	for _, o := range c.Drains {
		f.put(s.key(keyDrain, o.Server), o.Value)
	}
	for _, o := range c.Restarts {
		f.put(s.key(keyRestart, o.Server), o.Value)
	}
	for _, o := range c.Extensions {
		f.put(s.key(keyExtension, o.Server), o.Value)
	}
	f.runs(c)
}

func (f *filler) runs(c *store.Content) {
	s := f.s
	var last store.Run
	for _, r := range c.Runs {
		p, err := s.putPlan(f.ctx, r.Plan)
		if f.err == nil {
			f.err = err
		}
		if r.Plan = nil; r.Ended.IsZero() {
			f.put(s.key(keyOpen), r.ID)
		} else if !r.Ended.Before(last.Ended) {
			last = r
		}
		f.put(s.runKey(r.ID), run{r, p})
	}
	if last.ID != 0 {
		f.put(s.key(keyLast), last.ID)
	}
	next := map[string]uint64{}
	for _, e := range c.Journal {
		next[e.Server]++
		e.ID = int64(next[e.Server])
		f.put(s.lifeKey(keyJournal, e.Server, next[e.Server]), e)
	}
	for _, o := range c.Outcomes {
		f.put(s.lifeKey(keyOutcome, o.Server, o.Epoch), o)
	}
	for _, l := range c.Logins {
		f.flush() // each in a transaction of its own: their order is that of revisions
		f.put(s.loginKey(l), l)
	}
}

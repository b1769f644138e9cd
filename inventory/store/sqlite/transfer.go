package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"

	"mayfly/inventory/store"
)

// Export writes all that the store holds, as it is at one moment.
func (s *Store) Export(ctx context.Context, w io.Writer) error {
	if err := s.verify(ctx); err != nil {
		return fmt.Errorf("exporting the store: %w", err)
	}
	c, err := s.content(ctx)
	if err != nil {
		return fmt.Errorf("exporting the store: %w", err)
	}
	return c.Write(w)
}

// content reads everything in one read transaction: no writer waits for it, and it sees one moment.
func (s *Store) content(ctx context.Context) (c *store.Content, err error) {
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if _, err := conn.ExecContext(ctx, "BEGIN DEFERRED"); err != nil {
		return nil, err
	}
	defer func() {
		_, rerr := conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
		err = errors.Join(err, rerr)
	}()
	c = &store.Content{}
	for _, read := range []func(context.Context, queryer, *store.Content) error{s.readLives, s.readOrders, s.readRuns, s.readReleases} {
		if err := read(ctx, conn, c); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// each reads the rows of a query, if the schema has its table.
func each[T any](ctx context.Context, q queryer, has bool, list *[]T, scan func(row *sql.Rows, v *T) error, query string) (err error) {
	if !has {
		return nil
	}
	rows, err := q.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var v T
		if err := scan(rows, &v); err != nil {
			return err
		}
		*list = append(*list, v)
	}
	return rows.Err()
}

func (s *Store) readLives(ctx context.Context, q queryer, c *store.Content) error {
	all, err := serversIn(ctx, q, s.selectServers())
	if err != nil {
		return err
	}
	floors := map[string]uint64{}
	if s.has(schemaFloor) {
		var list []struct{}
		err := each(ctx, q, true, &list, func(r *sql.Rows, _ *struct{}) error {
			var name string
			var floor uint64
			err := r.Scan(&name, &floor)
			floors[name] = floor
			return err
		}, `SELECT name, epoch_floor FROM servers WHERE epoch_floor > 0`)
		if err != nil {
			return err
		}
	}
	for _, v := range all {
		c.Servers = append(c.Servers, store.Record{Server: v, Floor: floors[v.Name], Report: v.Health, ReportAt: v.HealthAt})
	}
	return errors.Join(
		each(ctx, q, true, &c.Events, func(r *sql.Rows, e *store.Event) error {
			var at int64
			err := r.Scan(&e.ID, &at, &e.Server, &e.From, &e.To, &e.Epoch, &e.Cause)
			e.At = moment(at)
			return err
		}, `SELECT id, at, server, from_state, to_state, epoch, cause FROM events ORDER BY id`),
		each(ctx, q, true, &c.Tickets, func(r *sql.Rows, t *store.Ticket) error {
			var notAfter, used int64
			err := r.Scan(&t.Hash, &t.Server, &t.Epoch, &notAfter, &used, &t.Revoked)
			t.NotAfter, t.Used = moment(notAfter), moment(used)
			return err
		}, `SELECT hash, server, epoch, not_after, used_at, revoked FROM tickets ORDER BY server, epoch, hash`),
		each(ctx, q, true, &c.Revoked, func(r *sql.Rows, e *store.Ended) error {
			var at int64
			err := r.Scan(&e.Server, &e.Epoch, &at)
			e.At = moment(at)
			return err
		}, `SELECT server, epoch, at FROM revoked_lives ORDER BY server, epoch`),
		each(ctx, q, true, &c.Failures, func(r *sql.Rows, f *store.Failure) error {
			var at int64
			err := r.Scan(&f.Server, &f.Epoch, &f.Reason, &f.Detail, &at)
			f.At = moment(at)
			return err
		}, `SELECT server, epoch, reason, detail, at FROM failures ORDER BY server, epoch`),
		each(ctx, q, s.has(schemaLogins), &c.Logins, scanLogin, selectLogins+` ORDER BY id`))
}

func (s *Store) readOrders(ctx context.Context, q queryer, c *store.Content) error {
	return errors.Join(
		each(ctx, q, true, &c.Drains, func(r *sql.Rows, o *store.Of[store.DrainOrder]) error {
			return r.Scan(&o.Server, &o.Value.Epoch, &o.Value.Limit)
		}, `SELECT server, epoch, limit_ns FROM drains ORDER BY server`),
		each(ctx, q, s.has(schemaRestarts), &c.Restarts, func(r *sql.Rows, o *store.Of[store.Restart]) error {
			var notAfter, delivered int64
			err := r.Scan(&o.Server, &o.Value.Epoch, &o.Value.File, &o.Value.Sig, &notAfter, &delivered)
			o.Value.NotAfter, o.Value.Delivered = moment(notAfter), moment(delivered)
			return err
		}, `SELECT server, epoch, file, sig, not_after, delivered FROM restarts ORDER BY server`),
		each(ctx, q, s.has(schemaExtended), &c.Extensions, func(r *sql.Rows, o *store.Of[store.Extension]) error {
			return r.Scan(&o.Server, &o.Value.Epoch, &o.Value.Statement, &o.Value.Sig)
		}, `SELECT server, epoch, statement, sig FROM extensions ORDER BY server`))
}

func (s *Store) readRuns(ctx context.Context, q queryer, c *store.Content) error {
	return errors.Join(
		each(ctx, q, true, &c.Runs, func(r *sql.Rows, v *store.Run) error {
			var began, ended, cancelled int64
			err := r.Scan(&v.ID, &v.Plan, &began, &ended, &v.Result, &cancelled, &v.By)
			v.Began, v.Ended, v.Cancelled = moment(began), moment(ended), moment(cancelled)
			return err
		}, `SELECT id, plan, began, ended, result, `+s.cancelColumns()+` FROM runs ORDER BY id`),
		each(ctx, q, true, &c.Journal, func(r *sql.Rows, e *store.Entry) error {
			var at int64
			err := r.Scan(&e.Run, &at, &e.Server, &e.Epoch, &e.Step, &e.Outcome, &e.Detail)
			e.At = moment(at)
			return err
		}, `SELECT run, at, server, epoch, step, outcome, detail FROM journal ORDER BY server, id`),
		each(ctx, q, s.has(schemaClaims), &c.Outcomes, scanOutcome, selectOutcomes+` ORDER BY server, epoch`))
}

func (s *Store) readReleases(ctx context.Context, q queryer, c *store.Content) (err error) {
	if s.has(schemaPolicy) {
		if c.Policy, err = policyVersion(ctx, q); err != nil {
			return err
		}
	}
	if !s.has(schemaClaims) {
		return nil
	}
	if c.Pause, err = paused(ctx, q); err != nil {
		return err
	}
	use, ok, err := inUse(ctx, q)
	if err != nil {
		return err
	}
	if ok {
		c.Use = &use
	}
	c.Marks, err = marks(ctx, q)
	return err
}

// Import fills an empty store with what Export wrote, in one transaction.
func (s *Store) Import(ctx context.Context, r io.Reader) error {
	c, err := store.ReadContent(r)
	if err != nil {
		return fmt.Errorf("importing: %w", err)
	}
	c.RevokeTickets()
	err = s.write(ctx, func(tx *sql.Tx) error {
		var n int
		if err := tx.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM servers) + (SELECT count(*) FROM runs) + (SELECT count(*) FROM policy) + (SELECT count(*) FROM marks) + (SELECT count(*) FROM uses)`).Scan(&n); err != nil {
			return err
		}
		if n != 0 {
			return store.ErrNotEmpty
		}
		return fill(ctx, tx, c)
	})
	if err != nil {
		return fmt.Errorf("importing: %w", err)
	}
	return nil
}

// filler inserts rows and remembers the first failure.
type filler struct {
	ctx context.Context
	tx  *sql.Tx
	err error
}

func (f *filler) insert(query string, args ...any) {
	if f.err == nil {
		_, f.err = f.tx.ExecContext(f.ctx, query, args...)
	}
}

func fill(ctx context.Context, tx *sql.Tx, c *store.Content) error {
	f := &filler{ctx: ctx, tx: tx}
	for _, v := range c.Servers {
		f.insert(`INSERT INTO servers (name, state, epoch, since, cause, release, boot_id, host_key, tunnel_key, tls_key, booted_at, joined_at, deadline, health, health_at, drained, drain_forced, evidence, epoch_floor)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, v.Name, string(v.State), int64(v.Epoch), stamp(v.Since), v.Cause, v.Release, v.BootID, v.HostKey, v.TunnelKey, v.TLSKey,
			stamp(v.BootedAt), stamp(v.JoinedAt), stamp(v.Deadline), v.Report, stamp(v.ReportAt), v.Drained, v.DrainForced, v.Evidence, int64(v.Floor))
		if v.Tainted {
			f.insert(`INSERT INTO taints (server, epoch, at, until, reason) VALUES (?, ?, ?, ?, ?)`, v.Name, int64(v.Epoch), stamp(v.Since), stamp(v.HeldUntil), v.TaintReason)
		}
	}
	for _, e := range c.Events {
		f.insert(`INSERT INTO events (id, at, server, from_state, to_state, epoch, cause) VALUES (?, ?, ?, ?, ?, ?, ?)`, e.ID, stamp(e.At), e.Server, e.From, e.To, int64(e.Epoch), e.Cause)
	}
	for _, t := range c.Tickets {
		f.insert(`INSERT INTO tickets (hash, server, epoch, not_after, used_at, revoked) VALUES (?, ?, ?, ?, ?, ?)`, t.Hash, t.Server, int64(t.Epoch), stamp(t.NotAfter), stamp(t.Used), t.Revoked)
	}
	for _, x := range c.Revoked {
		f.insert(`INSERT INTO revoked_lives (server, epoch, at) VALUES (?, ?, ?)`, x.Server, int64(x.Epoch), stamp(x.At))
	}
	for _, x := range c.Failures {
		f.insert(`INSERT INTO failures (server, epoch, reason, detail, at) VALUES (?, ?, ?, ?, ?)`, x.Server, int64(x.Epoch), x.Reason, x.Detail, stamp(x.At))
	}
	for _, x := range c.Drains {
		f.insert(`INSERT INTO drains (server, epoch, limit_ns) VALUES (?, ?, ?)`, x.Server, int64(x.Value.Epoch), int64(x.Value.Limit))
	}
	for _, x := range c.Restarts {
		f.insert(`INSERT INTO restarts (server, epoch, file, sig, not_after, delivered) VALUES (?, ?, ?, ?, ?, ?)`, x.Server, int64(x.Value.Epoch), x.Value.File, x.Value.Sig, stamp(x.Value.NotAfter), stamp(x.Value.Delivered))
	}
	for _, x := range c.Extensions {
		f.insert(`INSERT INTO extensions (server, epoch, statement, sig) VALUES (?, ?, ?, ?)`, x.Server, int64(x.Value.Epoch), x.Value.Statement, x.Value.Sig)
	}
	f.runs(c)
	return f.err
}

func (f *filler) runs(c *store.Content) {
	for _, r := range c.Runs {
		f.insert(`INSERT INTO runs (id, plan, began, ended, result, cancelled, cancelled_by) VALUES (?, ?, ?, ?, ?, ?, ?)`, r.ID, r.Plan, stamp(r.Began), stamp(r.Ended), r.Result, stamp(r.Cancelled), r.By)
	}
	for _, e := range c.Journal {
		f.insert(`INSERT INTO journal (run, at, server, epoch, step, outcome, detail) VALUES (?, ?, ?, ?, ?, ?, ?)`, e.Run, stamp(e.At), e.Server, int64(e.Epoch), e.Step, e.Outcome, e.Detail)
	}
	for _, o := range c.Outcomes {
		f.insert(insertOutcome, outcomeValues(o)...)
	}
	for _, l := range c.Logins {
		f.insert(insertLogin, loginValues(l)...)
	}
	if c.Policy > 0 {
		f.insert(`INSERT INTO policy (id, version) VALUES (1, ?)`, int64(c.Policy))
	}
	if c.Pause != (store.Pause{}) {
		f.insert(`INSERT INTO pause (id, paused, by_whom, why, at) VALUES (1, ?, ?, ?, ?)`, c.Pause.On, c.Pause.By, c.Pause.Why, stamp(c.Pause.At))
	}
	if u := c.Use; u != nil {
		f.insert(`INSERT INTO uses (version, digest, by_whom, at) VALUES (?, ?, ?, ?)`, int64(u.Version), u.Digest, u.By, stamp(u.At))
	}
	for _, m := range c.Marks {
		f.insert(`INSERT INTO marks (version, digest, mark, why, by_whom, at) VALUES (?, ?, ?, ?, ?, ?)`, int64(m.Version), m.Digest, m.Mark, m.Why, m.By, stamp(m.At))
	}
}

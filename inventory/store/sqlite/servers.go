package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"mayfly/inventory"
	"mayfly/inventory/store"
)

// selectServers reads servers with what other tables know of their present lives. What a store that is only read does not have yet is not there.
func (s *Store) selectServers() string {
	columns, joins := serverColumns, ""
	for _, x := range []struct {
		version             int
		columns, none, join string
	}{
		{1, `r.epoch IS NOT NULL`, ``, ` LEFT JOIN revoked_lives r ON r.server = s.name AND r.epoch = s.epoch`},
		{schemaTaints, `t.epoch IS NOT NULL, coalesce(t.until, 0), coalesce(t.reason, '')`, `0, 0, ''`, ` LEFT JOIN taints t ON t.server = s.name AND t.epoch = s.epoch`},
		{schemaEvidence, `s.evidence`, `''`, ``},
		{schemaExtended, `e.epoch IS NOT NULL`, `0`, ` LEFT JOIN extensions e ON e.server = s.name AND e.epoch = s.epoch`},
	} {
		if s.has(x.version) {
			columns, joins = columns+", "+x.columns, joins+x.join
		} else {
			columns += ", " + x.none
		}
	}
	return "SELECT " + columns + " FROM servers s" + joins
}

const serverColumns = `s.name, s.state, s.epoch, s.since, s.cause, s.release, s.boot_id, s.host_key, s.tunnel_key, s.tls_key, s.booted_at, s.joined_at, s.deadline, s.health, s.health_at, s.drained, s.drain_forced`

// newest is what selects servers in a store that this program has brought up.
var newest = (&Store{version: schemaVersion}).selectServers()

// Sync adds the fleet's servers that the store does not know yet, as New, and keeps all others.
func (s *Store) Sync(ctx context.Context, fleet inventory.Fleet, now time.Time) error {
	return s.write(ctx, func(tx *sql.Tx) error {
		for _, server := range fleet.Rebuilt() {
			_, err := tx.ExecContext(ctx, `INSERT INTO servers (name, state, since) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`,
				server.Name, string(inventory.New), stamp(now))
			if err != nil {
				return fmt.Errorf("adding server %s: %w", server.Name, err)
			}
		}
		return nil
	})
}

// queryer is a database or a transaction.
type queryer interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// Servers returns all servers by name.
func (s *Store) Servers(ctx context.Context) ([]store.Server, error) {
	return serversIn(ctx, s.db, s.selectServers())
}

// servers is Servers within a transaction, in which the schema is the newest.
func servers(ctx context.Context, q queryer) (all []store.Server, err error) {
	return serversIn(ctx, q, newest)
}

func serversIn(ctx context.Context, q queryer, query string) (all []store.Server, err error) {
	rows, err := q.QueryContext(ctx, query+" ORDER BY s.name")
	if err != nil {
		return nil, fmt.Errorf("reading servers: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		server, err := scanServer(rows)
		if err != nil {
			return nil, fmt.Errorf("reading servers: %w", err)
		}
		all = append(all, server)
	}
	return all, rows.Err()
}

// Server returns one server, or store.ErrUnknown.
func (s *Store) Server(ctx context.Context, name string) (store.Server, error) {
	return serverIn(ctx, s.db, s.selectServers(), name)
}

func server(ctx context.Context, q queryer, name string) (store.Server, error) {
	return serverIn(ctx, q, newest, name)
}

func serverIn(ctx context.Context, q queryer, query, name string) (store.Server, error) {
	found, err := scanServer(q.QueryRowContext(ctx, query+" WHERE s.name = ?", name))
	if errors.Is(err, sql.ErrNoRows) {
		return store.Server{}, fmt.Errorf("server %q: %w", name, store.ErrUnknown)
	}
	if err != nil {
		return store.Server{}, fmt.Errorf("reading server %q: %w", name, err)
	}
	return found, nil
}

func scanServer(row interface{ Scan(...any) error }) (store.Server, error) {
	var v store.Server
	var state string
	var since, booted, joined, deadline, healthAt, until int64
	var health []byte
	err := row.Scan(&v.Name, &state, &v.Epoch, &since, &v.Cause, &v.Release, &v.BootID, &v.HostKey, &v.TunnelKey, &v.TLSKey,
		&booted, &joined, &deadline, &health, &healthAt, &v.Drained, &v.DrainForced, &v.Revoked, &v.Tainted, &until, &v.TaintReason, &v.Evidence, &v.Extended)
	if err != nil {
		return store.Server{}, err
	}
	v.State, v.Since = inventory.State(state), moment(since)
	v.BootedAt, v.JoinedAt, v.Deadline = moment(booted), moment(joined), moment(deadline)
	v.Health, v.HealthAt, v.HeldUntil = health, moment(healthAt), moment(until)
	return v, nil
}

// Joined records what a server said when it joined and moves it from Booting to Attesting, in one transaction.
func (s *Store) Joined(ctx context.Context, name string, epoch uint64, j store.Joined) error {
	return s.writeOf(ctx, name, func(tx *sql.Tx) error {
		if err := move(ctx, tx, name, epoch, inventory.Booting, inventory.Attesting, "joined", j.At); err != nil {
			return err
		}
		return one(tx.ExecContext(ctx, `UPDATE servers SET boot_id = ?, host_key = ?, tunnel_key = ?, tls_key = ?, evidence = ?, joined_at = ?, deadline = ? WHERE name = ? AND epoch = ?`,
			j.BootID, j.HostKey, j.TunnelKey, j.TLSKey, j.Evidence, stamp(j.At), stamp(j.Deadline), name, int64(epoch)))
	})
}

// SetHealth keeps the newest health report of a life, as the server sent it.
func (s *Store) SetHealth(ctx context.Context, name string, epoch uint64, health []byte, at time.Time) error {
	return s.set(ctx, name, epoch, `health = ?, health_at = ?`, health, stamp(at))
}

// SetDrained records that a life has drained; forced, if peers were left when the bound passed.
func (s *Store) SetDrained(ctx context.Context, name string, epoch uint64, forced bool) error {
	return s.set(ctx, name, epoch, `drained = 1, drain_forced = ?`, forced)
}

// SetRelease records which release a life boots.
func (s *Store) SetRelease(ctx context.Context, name string, epoch uint64, release string) error {
	return s.set(ctx, name, epoch, `release = ?`, release)
}

// set changes columns of one life, which must be the current one.
func (s *Store) set(ctx context.Context, name string, epoch uint64, columns string, args ...any) error {
	return s.writeOf(ctx, name, func(tx *sql.Tx) error {
		err := one(tx.ExecContext(ctx, "UPDATE servers SET "+columns+" WHERE name = ? AND epoch = ?", append(args, name, int64(epoch))...))
		if errors.Is(err, errNone) {
			return staleness(ctx, tx, name, epoch, "")
		}
		return err
	})
}

var errNone = errors.New("no row changed")

// one asks that exactly one row was changed.
func one(r sql.Result, err error) error {
	if err != nil {
		return err
	}
	n, err := r.RowsAffected()
	if err == nil && n != 1 {
		err = errNone
	}
	return err
}

// staleness explains why a compare-and-set found nothing.
func staleness(ctx context.Context, q queryer, name string, epoch uint64, from inventory.State) error {
	have, err := server(ctx, q, name)
	if err != nil {
		return err
	}
	if from == "" {
		return fmt.Errorf("server %q is in life %d, not %d: %w", name, have.Epoch, epoch, store.ErrStale)
	}
	return fmt.Errorf("server %q is %s in life %d, not %s in life %d: %w", name, have.State, have.Epoch, from, epoch, store.ErrStale)
}

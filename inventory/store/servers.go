package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"mayfly/inventory"
)

// Server is what is known of one server and of its current life.
type Server struct {
	Name        string
	State       inventory.State
	Epoch       uint64    // of the current life; 0 before the first
	Since       time.Time // of the state
	Cause       string    // of the last transition
	Release     string    // version or hash that this life boots, as SetRelease put it
	BootID      string
	HostKey     string
	TunnelKey   string
	TLSKey      string    // SHA-256 of the Ed25519 key in its certificate, hex: binds connections to this life
	Evidence    string    // what is known of its boot: "attested", "claimed" or "unverified"; "" before it has joined
	BootedAt    time.Time // when it went to Booting
	JoinedAt    time.Time
	Deadline    time.Time // when this life ends itself
	Health      json.RawMessage
	HealthAt    time.Time
	Drained     bool
	DrainForced bool
	Revoked     bool // the ticket of this life came twice: it gets no stream and no certificate any more

	Tainted     bool      // an engineer was let onto this life: it never serves again
	HeldUntil   time.Time // until then the engineer may be on it, and nobody rebuilds it
	TaintReason string

	Extended bool // approvers let this life go on beyond its first deadline
}

// Joined is what a server said of itself when it joined.
type Joined struct {
	BootID    string
	HostKey   string
	TunnelKey string
	TLSKey    string
	Evidence  string // what the signer found
	At        time.Time
	Deadline  time.Time
}

const serverColumns = `name, state, epoch, since, cause, release, boot_id, host_key, tunnel_key, tls_key, booted_at, joined_at, deadline, health, health_at, drained, drain_forced,
	EXISTS (SELECT 1 FROM revoked_lives r WHERE r.server = servers.name AND r.epoch = servers.epoch)`

// Columns of a life's taint; those of a store that is only read and does not know them yet.
const (
	taintColumns   = `, EXISTS (SELECT 1 FROM taints t WHERE t.server = servers.name AND t.epoch = servers.epoch), coalesce((SELECT until FROM taints t WHERE t.server = servers.name AND t.epoch = servers.epoch), 0), coalesce((SELECT reason FROM taints t WHERE t.server = servers.name AND t.epoch = servers.epoch), '')`
	noTaintColumns = `, 0, 0, ''`
)

// The column of what is known of a life's boot, likewise.
const (
	evidenceColumn   = `, evidence`
	noEvidenceColumn = `, ''`
)

// The column of whether a life was extended, likewise.
const (
	extendedColumn   = `, EXISTS (SELECT 1 FROM extensions e WHERE e.server = servers.name AND e.epoch = servers.epoch)`
	unextendedColumn = `, 0`
)

// newestColumns are those of a store that this program has brought up.
const newestColumns = serverColumns + taintColumns + evidenceColumn + extendedColumn

func (s *Store) columns() string {
	all := serverColumns
	if s.untainted {
		all += noTaintColumns
	} else {
		all += taintColumns
	}
	if s.unproved {
		all += noEvidenceColumn
	} else {
		all += evidenceColumn
	}
	if s.unextended {
		return all + unextendedColumn
	}
	return all + extendedColumn
}

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
func (s *Store) Servers(ctx context.Context) ([]Server, error) {
	return serversIn(ctx, s.db, s.columns())
}

// servers is Servers within a transaction, in which the schema is the newest.
func servers(ctx context.Context, q queryer) (all []Server, err error) {
	return serversIn(ctx, q, newestColumns)
}

func serversIn(ctx context.Context, q queryer, columns string) (all []Server, err error) {
	rows, err := q.QueryContext(ctx, "SELECT "+columns+" FROM servers ORDER BY name")
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

// Server returns one server, or ErrUnknown.
func (s *Store) Server(ctx context.Context, name string) (Server, error) {
	return serverIn(ctx, s.db, s.columns(), name)
}

func server(ctx context.Context, q queryer, name string) (Server, error) {
	return serverIn(ctx, q, newestColumns, name)
}

func serverIn(ctx context.Context, q queryer, columns, name string) (Server, error) {
	found, err := scanServer(q.QueryRowContext(ctx, "SELECT "+columns+" FROM servers WHERE name = ?", name))
	if errors.Is(err, sql.ErrNoRows) {
		return Server{}, fmt.Errorf("server %q: %w", name, ErrUnknown)
	}
	if err != nil {
		return Server{}, fmt.Errorf("reading server %q: %w", name, err)
	}
	return found, nil
}

func scanServer(row interface{ Scan(...any) error }) (Server, error) {
	var v Server
	var state string
	var since, booted, joined, deadline, healthAt, until int64
	var health []byte
	err := row.Scan(&v.Name, &state, &v.Epoch, &since, &v.Cause, &v.Release, &v.BootID, &v.HostKey, &v.TunnelKey, &v.TLSKey,
		&booted, &joined, &deadline, &health, &healthAt, &v.Drained, &v.DrainForced, &v.Revoked, &v.Tainted, &until, &v.TaintReason, &v.Evidence, &v.Extended)
	if err != nil {
		return Server{}, err
	}
	v.State, v.Since = inventory.State(state), moment(since)
	v.BootedAt, v.JoinedAt, v.Deadline = moment(booted), moment(joined), moment(deadline)
	v.Health, v.HealthAt, v.HeldUntil = health, moment(healthAt), moment(until)
	return v, nil
}

// Joined records what a server said when it joined and moves it from Booting to Attesting, in one transaction.
func (s *Store) Joined(ctx context.Context, name string, epoch uint64, j Joined) error {
	return s.write(ctx, func(tx *sql.Tx) error {
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
	return s.write(ctx, func(tx *sql.Tx) error {
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
		return fmt.Errorf("server %q is in life %d, not %d: %w", name, have.Epoch, epoch, ErrStale)
	}
	return fmt.Errorf("server %q is %s in life %d, not %s in life %d: %w", name, have.State, have.Epoch, from, epoch, ErrStale)
}

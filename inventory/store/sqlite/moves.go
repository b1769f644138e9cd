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

// maxEvents bounds what one call of Events returns.
const maxEvents = 10_000

// Move takes a server from one state to another. It fails with store.ErrIllegal for a transition that is not in the table and for one to
// Wiping, which ends a life and is BeginLife's; and with store.ErrStale if the server is not in that life and state. The event is written in the same transaction.
func (s *Store) Move(ctx context.Context, name string, epoch uint64, from, to inventory.State, cause string, now time.Time) error {
	return s.MoveChecked(ctx, name, epoch, from, to, cause, now, nil)
}

// MoveChecked is Move if check agrees. check sees all servers as they are inside the transaction, so nothing can change between
// its answer and the move: a floor that holds then holds after.
func (s *Store) MoveChecked(ctx context.Context, name string, epoch uint64, from, to inventory.State, cause string, now time.Time, check func([]store.Server) error) error {
	if to == inventory.Wiping {
		return fmt.Errorf("moving server %q to %s within life %d: only BeginLife ends a life: %w", name, to, epoch, store.ErrIllegal)
	}
	return s.writeOf(ctx, name, func(tx *sql.Tx) error {
		if err := ask(ctx, tx, check); err != nil {
			return err
		}
		return move(ctx, tx, name, epoch, from, to, cause, now)
	})
}

// ask asks check, which may be nil, about all servers as they are in the transaction.
func ask(ctx context.Context, tx *sql.Tx, check store.Check) error {
	if check == nil {
		return nil
	}
	all, err := servers(ctx, tx)
	if err != nil {
		return err
	}
	return check(all)
}

func move(ctx context.Context, tx *sql.Tx, name string, epoch uint64, from, to inventory.State, cause string, now time.Time) error {
	if !inventory.Legal(from, to) {
		return fmt.Errorf("moving server %q from %s to %s: %w", name, from, to, store.ErrIllegal)
	}
	if to != inventory.Wiping && to != inventory.Quarantined {
		// The table alone leads a drained server to its wipe; this holds should the table ever change.
		if have, err := server(ctx, tx, name); err == nil && have.Tainted && have.Epoch == epoch {
			return fmt.Errorf("moving server %q to %s: %w", name, to, store.ErrTainted)
		}
	}
	booted := ""
	args := []any{string(to), stamp(now), cause}
	if to == inventory.Booting {
		booted = ", booted_at = ?"
		args = append(args, stamp(now))
	}
	err := one(tx.ExecContext(ctx, "UPDATE servers SET state = ?, since = ?, cause = ?"+booted+" WHERE name = ? AND epoch = ? AND state = ?",
		append(args, name, int64(epoch), string(from))...))
	if errors.Is(err, errNone) {
		err = staleness(ctx, tx, name, epoch, from)
	}
	if err != nil {
		return fmt.Errorf("moving server %q to %s: %w", name, to, err)
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO events (at, server, from_state, to_state, epoch, cause) VALUES (?, ?, ?, ?, ?, ?)`,
		stamp(now), name, string(from), string(to), int64(epoch), cause)
	return err
}

// BeginLife is Move to Wiping and the beginning of the next life, whose number it returns, in one transaction, if check, which
// may be nil, agrees: there is no moment at which the old life is over and the new one has no number. What was known of the old
// life (keys, health, drain) is gone, and its unused tickets are revoked.
func (s *Store) BeginLife(ctx context.Context, name string, epoch uint64, from inventory.State, cause string, now time.Time, check func([]store.Server) error) (uint64, error) {
	var next uint64
	err := s.writeOf(ctx, name, func(tx *sql.Tx) error {
		if err := ask(ctx, tx, check); err != nil {
			return err
		}
		if old, err := server(ctx, tx, name); err != nil {
			return err
		} else if old.Epoch == epoch && old.Tainted && now.Before(old.HeldUntil) {
			return fmt.Errorf("life %d of server %q, until %s: %w", epoch, name, old.HeldUntil.Format(time.RFC3339), store.ErrHeld)
		}
		if err := move(ctx, tx, name, epoch, from, inventory.Wiping, cause, now); err != nil {
			return err
		}
		have, err := server(ctx, tx, name)
		if err != nil {
			return err
		}
		next, err = nextEpoch(ctx, tx, have)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("beginning a life: %w", err)
	}
	return next, nil
}

func nextEpoch(ctx context.Context, tx *sql.Tx, have store.Server) (uint64, error) {
	for _, q := range []string{
		`UPDATE servers SET epoch = max(epoch + 1, epoch_floor), release = '', boot_id = '', host_key = '', tunnel_key = '', tls_key = '', evidence = '', booted_at = 0, joined_at = 0,
		 deadline = 0, health = NULL, health_at = 0, drained = 0, drain_forced = 0 WHERE name = ?`,
		`UPDATE tickets SET revoked = 1 WHERE server = ? AND used_at = 0`,
		`DELETE FROM drains WHERE server = ?`,
		`DELETE FROM taints WHERE server = ?`,
	} {
		if _, err := tx.ExecContext(ctx, q, have.Name); err != nil {
			return 0, err
		}
	}
	after, err := server(ctx, tx, have.Name)
	return after.Epoch, err
}

// Events returns the transitions after the one with this ID, oldest first; 0 for all. It returns a bounded number: ask again
// with the last ID until none comes.
func (s *Store) Events(ctx context.Context, after int64) (events []store.Event, err error) {
	rows, err := s.db.QueryContext(ctx, `SELECT id, at, server, from_state, to_state, epoch, cause FROM events WHERE id > ? ORDER BY id LIMIT ?`, after, maxEvents)
	if err != nil {
		return nil, fmt.Errorf("reading events: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var e store.Event
		var at int64
		if err := rows.Scan(&e.ID, &at, &e.Server, &e.From, &e.To, &e.Epoch, &e.Cause); err != nil {
			return nil, fmt.Errorf("reading events: %w", err)
		}
		e.At = moment(at)
		events = append(events, e)
	}
	return events, rows.Err()
}

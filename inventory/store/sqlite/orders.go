package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"mayfly/inventory/store"
	"time"
)

// OrderDrain asks a server's current life to drain. Ordering twice is ordering once, with the later limit.
func (s *Store) OrderDrain(ctx context.Context, name string, epoch uint64, limit time.Duration) error {
	return s.writeOf(ctx, name, func(tx *sql.Tx) error {
		have, err := server(ctx, tx, name)
		if err != nil {
			return err
		}
		if have.Epoch != epoch {
			return fmt.Errorf("ordering drain: %w", staleness(ctx, tx, name, epoch, ""))
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO drains (server, epoch, limit_ns) VALUES (?, ?, ?)
			ON CONFLICT (server) DO UPDATE SET epoch = excluded.epoch, limit_ns = excluded.limit_ns`, name, int64(epoch), int64(limit))
		if err != nil {
			return fmt.Errorf("ordering drain of server %q: %w", name, err)
		}
		return nil
	})
}

// Drains returns the orders that stand, by server.
func (s *Store) Drains(ctx context.Context) (orders map[string]store.DrainOrder, err error) {
	rows, err := s.db.QueryContext(ctx, `SELECT d.server, d.epoch, d.limit_ns FROM drains d JOIN servers s ON s.name = d.server AND s.epoch = d.epoch`)
	if err != nil {
		return nil, fmt.Errorf("reading drain orders: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	orders = map[string]store.DrainOrder{}
	for rows.Next() {
		var name string
		var o store.DrainOrder
		if err := rows.Scan(&name, &o.Epoch, &o.Limit); err != nil {
			return nil, fmt.Errorf("reading drain orders: %w", err)
		}
		orders[name] = o
	}
	return orders, rows.Err()
}

// BootFailed records why a life did not come up. The first report of a life stands: it is the cause.
func (s *Store) BootFailed(ctx context.Context, name string, epoch uint64, reason, detail string, at time.Time) error {
	return s.writeOf(ctx, name, func(tx *sql.Tx) error {
		if _, err := server(ctx, tx, name); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO failures (server, epoch, reason, detail, at) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
			name, int64(epoch), reason, detail, stamp(at))
		if err != nil {
			return fmt.Errorf("recording boot failure of server %q: %w", name, err)
		}
		return nil
	})
}

// LastFailure returns why a life did not come up, if it said so.
func (s *Store) LastFailure(ctx context.Context, name string, epoch uint64) (reason, detail string, ok bool, err error) {
	err = s.db.QueryRowContext(ctx, `SELECT reason, detail FROM failures WHERE server = ? AND epoch = ?`, name, int64(epoch)).Scan(&reason, &detail)
	if errors.Is(err, sql.ErrNoRows) {
		return "", "", false, nil
	}
	if err != nil {
		return "", "", false, fmt.Errorf("reading boot failure of server %q: %w", name, err)
	}
	return reason, detail, true, nil
}

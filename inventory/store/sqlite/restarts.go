package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"mayfly/inventory/store"
	"time"
)

// OrderRestart lays down an order for the server's current life. A later one takes the place of an earlier one.
func (s *Store) OrderRestart(ctx context.Context, name string, r store.Restart) error {
	return s.writeOf(ctx, name, func(tx *sql.Tx) error {
		have, err := server(ctx, tx, name)
		if err != nil {
			return err
		}
		if have.Epoch != r.Epoch {
			return fmt.Errorf("ordering a restart: %w", staleness(ctx, tx, name, r.Epoch, ""))
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO restarts (server, epoch, file, sig, not_after, delivered) VALUES (?, ?, ?, ?, ?, 0)
			ON CONFLICT (server) DO UPDATE SET epoch = excluded.epoch, file = excluded.file, sig = excluded.sig, not_after = excluded.not_after, delivered = 0`,
			name, int64(r.Epoch), r.File, r.Sig, stamp(r.NotAfter))
		if err != nil {
			return fmt.Errorf("ordering a restart of server %q: %w", name, err)
		}
		return nil
	})
}

// RestartDelivered says that the order was written to the stream of this life.
func (s *Store) RestartDelivered(ctx context.Context, name string, epoch uint64, at time.Time) error {
	return s.writeOf(ctx, name, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE restarts SET delivered = ? WHERE server = ? AND epoch = ? AND delivered = 0`, stamp(at), name, int64(epoch))
		if err != nil {
			return fmt.Errorf("recording the order to server %q: %w", name, err)
		}
		return nil
	})
}

// Restarts returns the newest order of each server that has one.
func (s *Store) Restarts(ctx context.Context) (all map[string]store.Restart, err error) {
	if !s.has(schemaRestarts) {
		return map[string]store.Restart{}, nil // opened for reading, and older
	}
	rows, err := s.db.QueryContext(ctx, `SELECT server, epoch, file, sig, not_after, delivered FROM restarts`)
	if err != nil {
		return nil, fmt.Errorf("reading orders to restart: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	all = make(map[string]store.Restart)
	for rows.Next() {
		var name string
		var r store.Restart
		var notAfter, delivered int64
		if err := rows.Scan(&name, &r.Epoch, &r.File, &r.Sig, &notAfter, &delivered); err != nil {
			return nil, fmt.Errorf("reading orders to restart: %w", err)
		}
		r.NotAfter, r.Delivered = moment(notAfter), moment(delivered)
		all[name] = r
	}
	return all, rows.Err()
}

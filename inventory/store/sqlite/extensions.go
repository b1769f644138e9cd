package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"mayfly/inventory/store"
	"time"
)

// Extend keeps an extension for delivery to the server's current life, and moves the life's deadline.
func (s *Store) Extend(ctx context.Context, name string, until time.Time, e store.Extension) error {
	return s.writeOf(ctx, name, func(tx *sql.Tx) error {
		err := one(tx.ExecContext(ctx, `UPDATE servers SET deadline = max(deadline, ?) WHERE name = ? AND epoch = ?`, stamp(until), name, int64(e.Epoch)))
		if errors.Is(err, errNone) {
			return fmt.Errorf("extending a life: %w", staleness(ctx, tx, name, e.Epoch, ""))
		}
		if err != nil {
			return fmt.Errorf("extending the life of server %q: %w", name, err)
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO extensions (server, epoch, statement, sig) VALUES (?, ?, ?, ?)
			ON CONFLICT (server) DO UPDATE SET epoch = excluded.epoch, statement = excluded.statement, sig = excluded.sig`, name, int64(e.Epoch), e.Statement, e.Sig)
		if err != nil {
			return fmt.Errorf("extending the life of server %q: %w", name, err)
		}
		return nil
	})
}

// Extensions returns the newest extension of each server that has one.
func (s *Store) Extensions(ctx context.Context) (all map[string]store.Extension, err error) {
	if !s.has(schemaExtended) {
		return map[string]store.Extension{}, nil // opened for reading, and older
	}
	rows, err := s.db.QueryContext(ctx, `SELECT server, epoch, statement, sig FROM extensions`)
	if err != nil {
		return nil, fmt.Errorf("reading extensions: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	all = make(map[string]store.Extension)
	for rows.Next() {
		var name string
		var e store.Extension
		if err := rows.Scan(&name, &e.Epoch, &e.Statement, &e.Sig); err != nil {
			return nil, fmt.Errorf("reading extensions: %w", err)
		}
		all[name] = e
	}
	return all, rows.Err()
}

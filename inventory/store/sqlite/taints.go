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

// Taint takes a serving server out for an engineer, if check agrees: it drains, and this life is tainted, in one transaction, so
// that whoever rotates never finds the one without the other. Until held is over, nobody rebuilds it (store.ErrHeld); it never serves
// again in this life (store.ErrTainted); the next life begins without the taint.
func (s *Store) Taint(ctx context.Context, name string, epoch uint64, reason string, held, now time.Time, check func([]store.Server) error) error {
	return s.writeOf(ctx, name, func(tx *sql.Tx) error {
		all, err := servers(ctx, tx)
		if err != nil {
			return err
		}
		if err := check(all); err != nil {
			return err
		}
		if err := move(ctx, tx, name, epoch, inventory.Serving, inventory.Draining, "for an engineer: "+reason, now); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO taints (server, epoch, at, until, reason) VALUES (?, ?, ?, ?, ?)
			ON CONFLICT (server) DO UPDATE SET epoch = excluded.epoch, at = excluded.at, until = excluded.until, reason = excluded.reason`,
			name, int64(epoch), stamp(now), stamp(held), reason)
		if err != nil {
			return fmt.Errorf("tainting server %q: %w", name, err)
		}
		return nil
	})
}

// Hold brings forward when a tainted life may be rebuilt. It never puts it off.
func (s *Store) Hold(ctx context.Context, name string, epoch uint64, until time.Time) error {
	return s.writeOf(ctx, name, func(tx *sql.Tx) error {
		err := one(tx.ExecContext(ctx, `UPDATE taints SET until = min(until, ?) WHERE server = ? AND epoch = ?`, stamp(until), name, int64(epoch)))
		if errors.Is(err, errNone) {
			return staleness(ctx, tx, name, epoch, "")
		}
		return err
	})
}

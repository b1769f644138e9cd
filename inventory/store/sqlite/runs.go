package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"mayfly/inventory/store"
	"time"
)

// BeginRun writes a plan down before its first step. It fails with store.ErrRunOpen if another run is open.
func (s *Store) BeginRun(ctx context.Context, plan []byte, now time.Time) (id int64, err error) {
	err = s.write(ctx, func(tx *sql.Tx) error {
		if _, open, err := openRun(ctx, tx, cancelColumns); err != nil {
			return err
		} else if open {
			return store.ErrRunOpen
		}
		r, err := tx.ExecContext(ctx, `INSERT INTO runs (plan, began) VALUES (?, ?)`, plan, stamp(now))
		if err != nil {
			return err
		}
		id, err = r.LastInsertId()
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("beginning a run: %w", err)
	}
	return id, nil
}

// OpenRun returns the run that is not finished, if there is one.
func (s *Store) OpenRun(ctx context.Context) (store.Run, bool, error) {
	return openRun(ctx, s.db, s.cancelColumns())
}

// cancelColumns are those of a cancelled run; of none, in a store that is only read and older.
func (s *Store) cancelColumns() string {
	if !s.has(schemaClaims) {
		return "0, ''"
	}
	return cancelColumns
}

const cancelColumns = "cancelled, cancelled_by"

func openRun(ctx context.Context, q queryer, cancel string) (store.Run, bool, error) {
	var r store.Run
	var began, cancelled int64
	err := q.QueryRowContext(ctx, `SELECT id, plan, began, `+cancel+` FROM runs WHERE ended = 0`).Scan(&r.ID, &r.Plan, &began, &cancelled, &r.By)
	if errors.Is(err, sql.ErrNoRows) {
		return store.Run{}, false, nil
	}
	if err != nil {
		return store.Run{}, false, fmt.Errorf("reading the open run: %w", err)
	}
	r.Began, r.Cancelled = moment(began), moment(cancelled)
	return r, true, nil
}

// EndRun closes a run with its result. A run ends once.
func (s *Store) EndRun(ctx context.Context, id int64, result string, now time.Time) error {
	err := s.write(ctx, func(tx *sql.Tx) error {
		return one(tx.ExecContext(ctx, `UPDATE runs SET ended = ?, result = ? WHERE id = ? AND ended = 0`, stamp(now), result, id))
	})
	if errors.Is(err, errNone) {
		err = store.ErrStale
	}
	if err != nil {
		return fmt.Errorf("ending run %d: %w", id, err)
	}
	return nil
}

// CancelRun has an open run begin nothing more.
func (s *Store) CancelRun(ctx context.Context, id int64, by string, now time.Time) error {
	err := s.write(ctx, func(tx *sql.Tx) error {
		return one(tx.ExecContext(ctx, `UPDATE runs SET cancelled = ?, cancelled_by = ? WHERE id = ? AND ended = 0 AND cancelled = 0`, stamp(now), by, id))
	})
	if errors.Is(err, errNone) {
		err = store.ErrStale
	}
	if err != nil {
		return fmt.Errorf("cancelling run %d: %w", id, err)
	}
	return nil
}

// LastRun returns the run that ended last, if there is one.
func (s *Store) LastRun(ctx context.Context) (store.Run, bool, error) {
	var r store.Run
	var began, ended, cancelled int64
	err := s.db.QueryRowContext(ctx, `SELECT id, plan, began, ended, result, `+s.cancelColumns()+` FROM runs WHERE ended > 0 ORDER BY ended DESC, id DESC LIMIT 1`).
		Scan(&r.ID, &r.Plan, &began, &ended, &r.Result, &cancelled, &r.By)
	if errors.Is(err, sql.ErrNoRows) {
		return store.Run{}, false, nil
	}
	if err != nil {
		return store.Run{}, false, fmt.Errorf("reading the last run: %w", err)
	}
	r.Began, r.Ended, r.Cancelled = moment(began), moment(ended), moment(cancelled)
	return r, true, nil
}

package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// Run is a rotation with its plan. It is open until EndRun; there is at most one open run.
type Run struct {
	ID     int64
	Plan   []byte
	Began  time.Time
	Ended  time.Time
	Result string
}

// BeginRun writes a plan down before its first step. It fails with ErrRunOpen if another run is open.
func (s *Store) BeginRun(ctx context.Context, plan []byte, now time.Time) (id int64, err error) {
	err = s.write(ctx, func(tx *sql.Tx) error {
		if _, open, err := openRun(ctx, tx); err != nil {
			return err
		} else if open {
			return ErrRunOpen
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
func (s *Store) OpenRun(ctx context.Context) (Run, bool, error) { return openRun(ctx, s.db) }

func openRun(ctx context.Context, q queryer) (Run, bool, error) {
	var r Run
	var began int64
	err := q.QueryRowContext(ctx, `SELECT id, plan, began FROM runs WHERE ended = 0`).Scan(&r.ID, &r.Plan, &began)
	if errors.Is(err, sql.ErrNoRows) {
		return Run{}, false, nil
	}
	if err != nil {
		return Run{}, false, fmt.Errorf("reading the open run: %w", err)
	}
	r.Began = moment(began)
	return r, true, nil
}

// EndRun closes a run with its result. A run ends once.
func (s *Store) EndRun(ctx context.Context, id int64, result string, now time.Time) error {
	err := s.write(ctx, func(tx *sql.Tx) error {
		return one(tx.ExecContext(ctx, `UPDATE runs SET ended = ?, result = ? WHERE id = ? AND ended = 0`, stamp(now), result, id))
	})
	if errors.Is(err, errNone) {
		err = ErrStale
	}
	if err != nil {
		return fmt.Errorf("ending run %d: %w", id, err)
	}
	return nil
}

package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"mayfly/inventory/store"
)

const (
	insertOutcome = `INSERT INTO outcomes (server, epoch, run, release, served, restarted, attempts, failed, reason, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`

	selectOutcomes = `SELECT server, epoch, run, release, served, restarted, attempts, failed, reason, at FROM outcomes`
)

func outcomeValues(o store.Outcome) []any {
	return []any{o.Server, int64(o.Epoch), o.Run, o.Release, o.Served, o.Restarted, o.Attempts, o.Failed, o.Reason, stamp(o.At)}
}

func scanOutcome(rows *sql.Rows, o *store.Outcome) error {
	var at int64
	err := rows.Scan(&o.Server, &o.Epoch, &o.Run, &o.Release, &o.Served, &o.Restarted, &o.Attempts, &o.Failed, &o.Reason, &at)
	o.At = moment(at)
	return err
}

// EndRotation records how a rotation ended, once.
func (s *Store) EndRotation(ctx context.Context, o store.Outcome) error {
	err := s.writeOf(ctx, o.Server, func(tx *sql.Tx) error {
		if _, err := server(ctx, tx, o.Server); err != nil {
			return err
		}
		return one(tx.ExecContext(ctx, insertOutcome+` ON CONFLICT DO NOTHING`, outcomeValues(o)...))
	})
	if errors.Is(err, errNone) {
		err = store.ErrEnded
	}
	if err != nil {
		return fmt.Errorf("ending the rotation of server %q, life %d: %w", o.Server, o.Epoch, err)
	}
	return nil
}

// Outcomes returns those at since or later, oldest first; of a release, or of all with "".
func (s *Store) Outcomes(ctx context.Context, release string, since time.Time) (all []store.Outcome, err error) {
	if !s.has(schemaClaims) {
		return nil, nil // opened for reading, and older
	}
	rows, err := s.db.QueryContext(ctx, selectOutcomes+`
		WHERE at >= ?1 AND (?2 = '' OR release = ?2) ORDER BY at, server, epoch`, stamp(since), release)
	if err != nil {
		return nil, fmt.Errorf("reading ends of rotations: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var o store.Outcome
		if err := scanOutcome(rows, &o); err != nil {
			return nil, fmt.Errorf("reading ends of rotations: %w", err)
		}
		all = append(all, o)
	}
	return all, rows.Err()
}

// SetPause says whether rotations begin.
func (s *Store) SetPause(ctx context.Context, p store.Pause) error {
	err := s.write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO pause (id, paused, by_whom, why, at) VALUES (1, ?, ?, ?, ?)
			ON CONFLICT (id) DO UPDATE SET paused = excluded.paused, by_whom = excluded.by_whom, why = excluded.why, at = excluded.at`, p.On, p.By, p.Why, stamp(p.At))
		return err
	})
	if err != nil {
		return fmt.Errorf("recording the pause: %w", err)
	}
	return nil
}

// Paused returns what SetPause said last.
func (s *Store) Paused(ctx context.Context) (store.Pause, error) {
	if !s.has(schemaClaims) {
		return store.Pause{}, nil // opened for reading, and older
	}
	return paused(ctx, s.db)
}

func paused(ctx context.Context, q queryer) (store.Pause, error) {
	var p store.Pause
	var at int64
	err := q.QueryRowContext(ctx, `SELECT paused, by_whom, why, at FROM pause`).Scan(&p.On, &p.By, &p.Why, &at)
	if errors.Is(err, sql.ErrNoRows) {
		return store.Pause{}, nil
	}
	if err != nil {
		return store.Pause{}, fmt.Errorf("reading the pause: %w", err)
	}
	p.At = moment(at)
	return p, nil
}

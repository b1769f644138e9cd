package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"mayfly/inventory/store"
)

// UseRelease says which release servers are to run from now on; store.ErrBad for one that is marked bad.
func (s *Store) UseRelease(ctx context.Context, u store.Use) error {
	err := s.write(ctx, func(tx *sql.Tx) error {
		if m, ok, err := markOf(ctx, tx, u.Version, u.Digest); err != nil {
			return err
		} else if ok && m.Mark == store.Bad {
			return fmt.Errorf("%s: %w", m.Why, store.ErrBad)
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO uses (version, digest, by_whom, at) VALUES (?, ?, ?, ?)`, int64(u.Version), u.Digest, u.By, stamp(u.At))
		return err
	})
	if err != nil {
		return fmt.Errorf("using release %d: %w", u.Version, err)
	}
	return nil
}

// InUse returns what UseRelease said last, if anything.
func (s *Store) InUse(ctx context.Context) (store.Use, bool, error) {
	if !s.has(schemaClaims) {
		return store.Use{}, false, nil // opened for reading, and older
	}
	return inUse(ctx, s.db)
}

func inUse(ctx context.Context, q queryer) (store.Use, bool, error) {
	var u store.Use
	var at int64
	err := q.QueryRowContext(ctx, `SELECT version, digest, by_whom, at FROM uses ORDER BY id DESC LIMIT 1`).Scan(&u.Version, &u.Digest, &u.By, &at)
	if errors.Is(err, sql.ErrNoRows) {
		return store.Use{}, false, nil
	}
	if err != nil {
		return store.Use{}, false, fmt.Errorf("reading the release in use: %w", err)
	}
	u.At = moment(at)
	return u, true, nil
}

// MarkRelease marks a release. One that is bad stays bad; the first mark of a kind stands.
func (s *Store) MarkRelease(ctx context.Context, m store.Mark) error {
	err := s.write(ctx, func(tx *sql.Tx) error {
		have, ok, err := markOf(ctx, tx, m.Version, m.Digest)
		switch {
		case err != nil:
			return err
		case m.Mark != store.Good && m.Mark != store.Bad:
			return fmt.Errorf("there is no mark %q", m.Mark)
		case ok && have.Mark == m.Mark:
			return nil
		case ok && have.Mark == store.Bad:
			return fmt.Errorf("%s: %w", have.Why, store.ErrBad)
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO marks (version, digest, mark, why, by_whom, at) VALUES (?, ?, ?, ?, ?, ?)
			ON CONFLICT (version, digest) DO UPDATE SET mark = excluded.mark, why = excluded.why, by_whom = excluded.by_whom, at = excluded.at`,
			int64(m.Version), m.Digest, m.Mark, m.Why, m.By, stamp(m.At))
		return err
	})
	if err != nil {
		return fmt.Errorf("marking release %d: %w", m.Version, err)
	}
	return nil
}

func markOf(ctx context.Context, q queryer, version uint64, digest string) (m store.Mark, ok bool, err error) {
	var at int64
	m.Version, m.Digest = version, digest
	err = q.QueryRowContext(ctx, `SELECT mark, why, by_whom, at FROM marks WHERE version = ? AND digest = ?`, int64(version), digest).Scan(&m.Mark, &m.Why, &m.By, &at)
	if errors.Is(err, sql.ErrNoRows) {
		return m, false, nil
	}
	if err != nil {
		return m, false, fmt.Errorf("reading what is known of release %d: %w", version, err)
	}
	m.At = moment(at)
	return m, true, nil
}

// Marks returns all marks, by version.
func (s *Store) Marks(ctx context.Context) (all []store.Mark, err error) {
	if !s.has(schemaClaims) {
		return nil, nil // opened for reading, and older
	}
	return marks(ctx, s.db)
}

func marks(ctx context.Context, q queryer) (all []store.Mark, err error) {
	rows, err := q.QueryContext(ctx, `SELECT version, digest, mark, why, by_whom, at FROM marks ORDER BY version, digest`)
	if err != nil {
		return nil, fmt.Errorf("reading what is known of releases: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var m store.Mark
		var at int64
		if err := rows.Scan(&m.Version, &m.Digest, &m.Mark, &m.Why, &m.By, &at); err != nil {
			return nil, fmt.Errorf("reading what is known of releases: %w", err)
		}
		m.At = moment(at)
		all = append(all, m)
	}
	return all, rows.Err()
}

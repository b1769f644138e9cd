package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"mayfly/inventory/store"
)

// maxJournal bounds what one call of Journal returns: the newest records of one server.
const maxJournal = 1000

// Record writes one record. It is on disk when Record returns.
func (s *Store) Record(ctx context.Context, e store.Entry) error {
	err := s.writeOf(ctx, e.Server, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO journal (run, at, server, epoch, step, outcome, detail) VALUES (?, ?, ?, ?, ?, ?, ?)`,
			e.Run, stamp(e.At), e.Server, int64(e.Epoch), e.Step, e.Outcome, e.Detail)
		return err
	})
	if err != nil {
		return fmt.Errorf("recording %s of server %q in the journal: %w", e.Step, e.Server, err)
	}
	return nil
}

// Journal returns the newest records of a server, oldest first, a bounded number.
func (s *Store) Journal(ctx context.Context, server string) (entries []store.Entry, err error) {
	rows, err := s.db.QueryContext(ctx, `SELECT * FROM (SELECT id, run, at, server, epoch, step, outcome, detail FROM journal WHERE server = ?
		ORDER BY id DESC LIMIT ?) ORDER BY id`, server, maxJournal)
	if err != nil {
		return nil, fmt.Errorf("reading the journal: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var e store.Entry
		var at int64
		if err := rows.Scan(&e.ID, &e.Run, &at, &e.Server, &e.Epoch, &e.Step, &e.Outcome, &e.Detail); err != nil {
			return nil, fmt.Errorf("reading the journal: %w", err)
		}
		e.At = moment(at)
		entries = append(entries, e)
	}
	return entries, rows.Err()
}

package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"mayfly/inventory/store"
	"time"
)

// PutTicket records a ticket for a server's current life by the SHA-256 of its exact bytes. Earlier tickets of that server that
// were not used are revoked.
func (s *Store) PutTicket(ctx context.Context, name string, epoch uint64, hash [32]byte, notAfter time.Time) error {
	return s.writeOf(ctx, name, func(tx *sql.Tx) error {
		have, err := server(ctx, tx, name)
		if err != nil {
			return err
		}
		if have.Epoch != epoch || epoch == 0 {
			return fmt.Errorf("ticket for life %d of server %q, which is in life %d: %w", epoch, name, have.Epoch, store.ErrStale)
		}
		if _, err := tx.ExecContext(ctx, `UPDATE tickets SET revoked = 1 WHERE server = ? AND used_at = 0`, name); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO tickets (hash, server, epoch, not_after) VALUES (?, ?, ?, ?)`, hash[:], name, int64(epoch), stamp(notAfter))
		if err != nil {
			return fmt.Errorf("recording ticket of server %q: %w", name, err)
		}
		return nil
	})
}

// UseTicket uses a ticket up. Only the first use of a known, unrevoked, unexpired ticket returns nil. A second use is a sign that
// somebody else has the ticket: it returns store.ErrTicketUsed and revokes the life that the first use began.
func (s *Store) UseTicket(ctx context.Context, hash [32]byte, name string, epoch uint64, now time.Time) error {
	var verdict error
	err := s.writeOf(ctx, name, func(tx *sql.Tx) error {
		var usedAt, notAfter int64
		var revoked bool
		err := tx.QueryRowContext(ctx, `SELECT used_at, not_after, revoked FROM tickets WHERE hash = ? AND server = ? AND epoch = ?`,
			hash[:], name, int64(epoch)).Scan(&usedAt, &notAfter, &revoked)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			verdict = store.ErrTicketUnknown
			return nil
		case err != nil:
			return err
		case usedAt != 0:
			verdict = store.ErrTicketUsed // and this transaction is committed all the same
			_, err := tx.ExecContext(ctx, `INSERT INTO revoked_lives (server, epoch, at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`, name, int64(epoch), stamp(now))
			return err
		case revoked:
			verdict = store.ErrTicketRevoked
			return nil
		case now.UnixNano() >= notAfter:
			verdict = store.ErrTicketExpired
			return nil
		}
		return one(tx.ExecContext(ctx, `UPDATE tickets SET used_at = ? WHERE hash = ? AND used_at = 0`, stamp(now), hash[:]))
	})
	if err == nil {
		err = verdict
	}
	if err != nil {
		return fmt.Errorf("using ticket of server %q, life %d: %w", name, epoch, err)
	}
	return nil
}

// Revoked reports whether a life was revoked because its ticket came twice.
func (s *Store) Revoked(ctx context.Context, name string, epoch uint64) (bool, error) {
	var n int
	err := s.db.QueryRowContext(ctx, `SELECT count(*) FROM revoked_lives WHERE server = ? AND epoch = ?`, name, int64(epoch)).Scan(&n)
	if err != nil {
		return true, fmt.Errorf("reading revocations of server %q: %w", name, err)
	}
	return n > 0, nil
}

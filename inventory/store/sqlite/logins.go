package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"mayfly/inventory/store"
	"net/netip"
	"time"
)

// maxLogins is how many logins of one server are kept; older ones are dropped. A server that was taken over can lose its own, and
// nobody else's.
const maxLogins = 10_000

const (
	insertLogin = `INSERT INTO logins (server, epoch, number, at, seen, user, method, key, peer, unread, missed) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`

	selectLogins = `SELECT server, epoch, number, at, seen, user, method, key, peer, unread, missed FROM logins`
)

func loginValues(l store.Login) []any {
	peer := ""
	if l.Peer.IsValid() {
		peer = l.Peer.String()
	}
	return []any{l.Server, int64(l.Epoch), int64(l.Number), stamp(l.At), stamp(l.Seen), l.User, l.Method, l.Key, peer, l.Unread, int64(l.Missed)}
}

func scanLogin(rows *sql.Rows, l *store.Login) (err error) {
	var epoch, number, at, seen, missed int64
	var peer string
	if err := rows.Scan(&l.Server, &epoch, &number, &at, &seen, &l.User, &l.Method, &l.Key, &peer, &l.Unread, &missed); err != nil {
		return err
	}
	l.Epoch, l.Number, l.Missed = uint64(epoch), uint64(number), uint64(missed)
	l.At, l.Seen = moment(at), moment(seen)
	if peer != "" {
		l.Peer, err = netip.ParseAddrPort(peer)
	}
	return err
}

// AddLogin keeps a login, once: fresh is false for one that is there already.
func (s *Store) AddLogin(ctx context.Context, l store.Login) (fresh bool, err error) {
	err = s.writeOf(ctx, l.Server, func(tx *sql.Tx) error {
		if _, err := server(ctx, tx, l.Server); err != nil {
			return err
		}
		result, err := tx.ExecContext(ctx, insertLogin+` ON CONFLICT (server, epoch, number) DO NOTHING`, loginValues(l)...)
		if err != nil {
			return fmt.Errorf("keeping a login of server %q: %w", l.Server, err)
		}
		n, err := result.RowsAffected()
		if fresh = n > 0; err != nil || !fresh {
			return err
		}
		_, err = tx.ExecContext(ctx, `DELETE FROM logins WHERE server = ?1 AND id <= (SELECT id FROM logins WHERE server = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)`,
			l.Server, maxLogins)
		if err != nil {
			return fmt.Errorf("dropping old logins of server %q: %w", l.Server, err)
		}
		return nil
	})
	return fresh, err
}

// Logins returns the logins that the controller heard of at since or later, in the order in which it did.
func (s *Store) Logins(ctx context.Context, since time.Time) (list []store.Login, err error) {
	if !s.has(schemaLogins) {
		return nil, nil // opened for reading, and written before logins were kept
	}
	rows, err := s.db.QueryContext(ctx, selectLogins+` WHERE seen >= ? ORDER BY id`, stamp(since))
	if err != nil {
		return nil, fmt.Errorf("reading logins: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var l store.Login
		if err := scanLogin(rows, &l); err != nil {
			return nil, fmt.Errorf("reading logins: %w", err)
		}
		list = append(list, l)
	}
	return list, rows.Err()
}

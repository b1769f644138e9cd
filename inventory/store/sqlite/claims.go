package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"mayfly/inventory/store"
)

// Claim takes the server, or fails with store.ErrClaimed.
func (s *Store) Claim(ctx context.Context, name, holder string, ttl time.Duration, now time.Time) (store.Claim, error) {
	c := store.Claim{Server: name, Holder: holder, Expires: now.Add(ttl)}
	var far error
	err := s.write(ctx, func(tx *sql.Tx) error {
		if !strings.HasPrefix(name, store.Shared) {
			if _, err := server(ctx, tx, name); err != nil {
				return err
			}
		}
		have, err := claimOf(ctx, tx, name)
		if err != nil {
			return err
		}
		if have.Holder != "" && have.Holder != holder && have.Expires.After(now.Add(2*ttl)) {
			// No claim lasts that long: the clock was set back. A dead holder's ends a ttl from now; a living one renews it.
			far = fmt.Errorf("%s, until %s: %w", have.Holder, c.Expires.Format(time.RFC3339), store.ErrClaimed)
			_, err := tx.ExecContext(ctx, `UPDATE claims SET expires = ? WHERE server = ?`, stamp(c.Expires), name)
			return err
		}
		if have.Holder != "" && have.Holder != holder && now.Before(have.Expires) {
			return fmt.Errorf("%s, until %s: %w", have.Holder, have.Expires.Format(time.RFC3339), store.ErrClaimed)
		}
		c.Token = have.Token + 1
		_, err = tx.ExecContext(ctx, `INSERT INTO claims (server, token, holder, expires) VALUES (?, ?, ?, ?)
			ON CONFLICT (server) DO UPDATE SET token = excluded.token, holder = excluded.holder, expires = excluded.expires`, name, int64(c.Token), holder, stamp(c.Expires))
		return err
	})
	if err == nil {
		err = far
	}
	if err != nil {
		return store.Claim{}, fmt.Errorf("claiming server %q: %w", name, err)
	}
	return c, nil
}

// claimOf returns the newest claim of a server, whether it lasts or not; the zero Claim if there never was one.
func claimOf(ctx context.Context, q queryer, name string) (store.Claim, error) {
	c := store.Claim{Server: name}
	var expires int64
	err := q.QueryRowContext(ctx, `SELECT token, holder, expires FROM claims WHERE server = ?`, name).Scan(&c.Token, &c.Holder, &expires)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return c, fmt.Errorf("reading the claim of server %q: %w", name, err)
	}
	c.Expires = moment(expires)
	return c, nil
}

// Renew lets a claim go on, or fails with store.ErrFenced.
func (s *Store) Renew(ctx context.Context, c store.Claim, ttl time.Duration, now time.Time) (store.Claim, error) {
	c.Expires = now.Add(ttl)
	err := s.write(ctx, func(tx *sql.Tx) error {
		return one(tx.ExecContext(ctx, `UPDATE claims SET expires = ? WHERE server = ? AND token = ? AND holder = ?`, stamp(c.Expires), c.Server, int64(c.Token), c.Holder))
	})
	if errors.Is(err, errNone) {
		err = store.ErrFenced
	}
	if err != nil {
		return store.Claim{}, fmt.Errorf("renewing the claim of server %q: %w", c.Server, err)
	}
	return c, nil
}

// Release ends a claim. Its token is never given again.
func (s *Store) Release(ctx context.Context, c store.Claim) error {
	err := s.write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE claims SET holder = '', expires = 0 WHERE server = ? AND token = ?`, c.Server, int64(c.Token))
		return err
	})
	if err != nil {
		return fmt.Errorf("releasing the claim of server %q: %w", c.Server, err)
	}
	return nil
}

// Claims returns those that last at now, by server.
func (s *Store) Claims(ctx context.Context, now time.Time) (all []store.Claim, err error) {
	if !s.has(schemaClaims) {
		return nil, nil // opened for reading, and older
	}
	rows, err := s.db.QueryContext(ctx, `SELECT server, token, holder, expires FROM claims WHERE expires > ? ORDER BY server`, stamp(now))
	if err != nil {
		return nil, fmt.Errorf("reading claims: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var c store.Claim
		var expires int64
		if err := rows.Scan(&c.Server, &c.Token, &c.Holder, &expires); err != nil {
			return nil, fmt.Errorf("reading claims: %w", err)
		}
		c.Expires = moment(expires)
		all = append(all, c)
	}
	return all, rows.Err()
}

// Fenced is the same store for the holder of c.
func (s *Store) Fenced(c store.Claim) store.Store {
	f := *s
	f.fence = &c
	return &f
}

// writeOf is write of what is a server's: it fails with store.ErrFenced if this store is a claim's that was lost.
func (s *Store) writeOf(ctx context.Context, name string, f func(tx *sql.Tx) error) error {
	return s.write(ctx, func(tx *sql.Tx) error {
		if err := s.fenced(ctx, tx, name); err != nil {
			return err
		}
		return f(tx)
	})
}

// fenced fails with store.ErrFenced if this store is one claim's, and another of the same server was made.
func (s *Store) fenced(ctx context.Context, tx *sql.Tx, name string) error {
	if s.fence == nil || s.fence.Server != name {
		return nil
	}
	have, err := claimOf(ctx, tx, name)
	if err != nil {
		return err
	}
	if have.Token != s.fence.Token || have.Holder != s.fence.Holder {
		return fmt.Errorf("server %q, claim %d of %s: %w", name, s.fence.Token, s.fence.Holder, store.ErrFenced)
	}
	return nil
}

package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	driver "modernc.org/sqlite"

	"mayfly/internal/hint"
)

// ErrDamaged is for a file that is not as SQLite wrote it. Nothing is written into it any more.
var ErrDamaged = errors.New("the store is damaged")

// Implementation constants.
const (
	sqliteCorrupt = 11 // SQLITE_CORRUPT
	sqliteNotADB  = 26 // SQLITE_NOTADB
	sqliteIO      = 10 // SQLITE_IOERR: a file that ends too soon
	checkLimit    = 20 * time.Second
	smallFile     = 16 << 20 // bytes up to which a file is checked each time it is opened: that takes milliseconds
	leastFile     = 512
	maxTold       = 20 // servers that a message names
)

// inspect refuses a damaged file before anything is written to it. A small one is checked each time, a larger one after an unclean end.
func inspect(ctx context.Context, path string) error {
	info, err := os.Stat(path)
	if err != nil || info.Size() == 0 {
		return err
	}
	if info.Size() < leastFile { // SQLite takes it for an empty one
		return hint.New(fmt.Errorf("%w: it ends after %d bytes", ErrDamaged, info.Size()), restoreHint)
	}
	if wal, err := os.Stat(path + "-wal"); info.Size() > smallFile && (err != nil || wal.Size() == 0) {
		return nil
	}
	s, err := connect(ctx, path, func(s *Store, ctx context.Context) error {
		h, err := readHeader(ctx, s.db)
		if err == nil && (h.empty() || h.check() != nil) {
			return nil // whoever opens it says whose it is
		}
		return s.verify(ctx)
	}, readOnly)
	if err != nil {
		return err
	}
	return s.Close()
}

// readOnly opens a file for reading. Not mode=ro: that would leave the files of the write-ahead log behind.
var readOnly = url.Values{"mode": {"rw"}, "_pragma": {"query_only(1)"}}

const restoreHint = "take the file away, keep it, and `fleetctl restore` the newest backup"

// verify refuses a file of which a page is not as SQLite writes it, or an index does not agree with its table. It takes checkLimit at most.
func (s *Store) verify(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	faults, err := s.faults(limited)
	switch {
	case limited.Err() != nil && ctx.Err() == nil:
		return nil // too large for this time: what is read is still refused where it is damaged
	case err == nil && len(faults) == 0:
		return nil
	case err == nil:
		err = errors.New(strings.Join(faults, "; "))
	case !broken(err):
		return err
	}
	return s.damaged(ctx, err)
}

func (s *Store) faults(ctx context.Context) (all []string, err error) {
	rows, err := s.db.QueryContext(ctx, `PRAGMA integrity_check(5)`)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var said string
		if err := rows.Scan(&said); err != nil {
			return nil, err
		}
		if said != "ok" {
			all = append(all, strings.ReplaceAll(said, "\n", " "))
		}
	}
	return all, rows.Err()
}

// broken reports whether SQLite found the file to be none of its own.
func broken(err error) bool {
	var e *driver.Error
	if !errors.As(err, &e) {
		return false
	}
	code := e.Code() & 0xff
	return code == sqliteCorrupt || code == sqliteNotADB || code == sqliteIO
}

// damaged says what is wrong, and which servers could still be read.
func (s *Store) damaged(ctx context.Context, why error) error {
	var told []string
	n := 0
	_ = s.readable(ctx, func(name, state string, epoch int64) { // as far as it goes
		if n++; n <= maxTold {
			told = append(told, fmt.Sprintf("%s %s in life %d", name, state, epoch))
		}
	})
	what := "no server could be read"
	if n > 0 {
		what = fmt.Sprintf("%d servers could be read, and others may be missing: %s", n, strings.Join(told, ", "))
	}
	return hint.New(fmt.Errorf("%w: %w; %s", ErrDamaged, why, what), restoreHint)
}

func (s *Store) readable(ctx context.Context, each func(name, state string, epoch int64)) (err error) {
	rows, err := s.db.QueryContext(ctx, `SELECT name, state, epoch FROM servers NOT INDEXED`)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var name, state sql.NullString
		var epoch sql.NullInt64
		if err := rows.Scan(&name, &state, &epoch); err != nil {
			return err
		}
		if name.Valid && state.Valid {
			each(name.String, state.String, epoch.Int64)
		}
	}
	return rows.Err()
}

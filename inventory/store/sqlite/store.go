// Package sqlite keeps the state store (package store) in one SQLite file that fleetctl's processes open at once.
//
// Every change is one immediate transaction. A returned change is on disk (synchronous=FULL).
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"

	driver "modernc.org/sqlite" // pure Go; registers itself as "sqlite"

	"mayfly/internal/hint"
	"mayfly/inventory/store"
)

// Implementation constants.
const (
	busyTimeout    = 10 * time.Second
	busyPause      = 20 * time.Millisecond
	sqliteBusy     = 5 // SQLITE_BUSY
	maxConnections = 4
)

// Store is an open state store. It may be used by several goroutines.
type Store struct {
	db *sql.DB

	// writing is held by the one write of this process that is under way. SQLite lets writers try again and again without an order, and
	// under a thousand rotations one of them would try in vain for longer than busyTimeout.
	writing chan struct{}

	fence *store.Claim // set by Fenced

	version int // of the schema: older than schemaVersion in a store that is opened for reading alone
}

// Open opens the store at path, and makes it, readable by this user only, if it is not there. It refuses a file of another
// program and one of a newer schema.
func Open(ctx context.Context, path string) (*Store, error) {
	s, err := open(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("opening store %s: %w", path, err)
	}
	return s, nil
}

func open(ctx context.Context, path string) (*Store, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) // SQLite gives its other files the same mode
	if err != nil {
		return nil, hint.New(err, "check --dir, and that this user may write there")
	}
	info, err := f.Stat()
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if err := private(info, path); err != nil {
		return nil, err
	}
	if err := inspect(ctx, path); err != nil {
		return nil, err
	}
	return connect(ctx, path, (*Store).migrate, url.Values{
		"_pragma": {"journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)"},
		"_txlock": {"immediate"},
	})
}

// OpenReadOnly opens a store that is there for reading: whatever would change it fails. A store that is not there is
// fs.ErrNotExist, and none is made.
func OpenReadOnly(ctx context.Context, path string) (*Store, error) {
	s, err := openReadOnly(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("opening store %s for reading: %w", path, err)
	}
	return s, nil
}

func openReadOnly(ctx context.Context, path string) (*Store, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if err := private(info, path); err != nil {
		return nil, err
	}
	if info.Size() <= smallFile {
		if err := inspect(ctx, path); err != nil {
			return nil, err
		}
	}
	return connect(ctx, path, (*Store).recognize, readOnly)
}

// private refuses a store that somebody else may have written.
func private(info os.FileInfo, path string) error {
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return hint.New(fmt.Errorf("mode %04o lets others at it", perm), "chmod 600 %s", path)
	}
	return nil
}

// connect opens the file and has it checked.
func connect(ctx context.Context, path string, check func(*Store, context.Context) error, how url.Values) (*Store, error) {
	how = maps.Clone(how)
	how["_pragma"] = slices.Clone(how["_pragma"])
	// The driver applies busy_timeout before the other pragmas.
	how.Add("_pragma", fmt.Sprintf("busy_timeout(%d)", busyTimeout.Milliseconds()))
	dsn := url.URL{Scheme: "file", Path: path, RawQuery: how.Encode()}
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(maxConnections)
	s := &Store{db: db, writing: make(chan struct{}, 1)}
	for began := time.Now(); ; {
		err := check(s, ctx)
		// SQLite does not wait when several openers turn a new file's write-ahead log on at once.
		if busy(err) && time.Since(began) < busyTimeout && ctx.Err() == nil {
			time.Sleep(busyPause)
			continue
		}
		if err != nil {
			return nil, errors.Join(err, db.Close())
		}
		return s, nil
	}
}

// busy reports whether somebody else had the file locked.
func busy(err error) bool {
	var e *driver.Error
	return errors.As(err, &e) && e.Code()&0xff == sqliteBusy
}

var _ store.Store = (*Store)(nil)

// Close closes the store.
func (s *Store) Close() error { return s.db.Close() }

// has reports whether the schema has what came with a version. A store that is only read may be older, and then knows nothing of it.
func (s *Store) has(version int) bool { return s.version >= version }

// write runs f in one immediate transaction and commits if it returns nil.
func (s *Store) write(ctx context.Context, f func(tx *sql.Tx) error) error {
	select {
	case s.writing <- struct{}{}:
		defer func() { <-s.writing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := f(tx); err != nil {
		if rerr := tx.Rollback(); rerr != nil && !errors.Is(rerr, sql.ErrTxDone) {
			return errors.Join(err, rerr)
		}
		return err
	}
	return tx.Commit()
}

// stamp and moment turn times into the store's nanoseconds and back; 0 is no time.
func stamp(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func moment(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns).UTC()
}

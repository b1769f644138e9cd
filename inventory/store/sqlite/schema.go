package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"mayfly/internal/hint"
	"mayfly/inventory/store"
)

// Specification constants of the file.
const (
	applicationID = 0x6d61796c // "mayl" in SQLite's header: this file is mayfly's
	schemaVersion = 9
)

// schema1 is schema version 1. Times are nanoseconds since 1970, 0 for none.
const schema1 = `
CREATE TABLE servers (
  name         TEXT PRIMARY KEY,
  state        TEXT NOT NULL,
  epoch        INTEGER NOT NULL DEFAULT 0,
  since        INTEGER NOT NULL,
  cause        TEXT NOT NULL DEFAULT '',
  release      TEXT NOT NULL DEFAULT '',
  boot_id      TEXT NOT NULL DEFAULT '',
  host_key     TEXT NOT NULL DEFAULT '',
  tunnel_key   TEXT NOT NULL DEFAULT '',
  tls_key      TEXT NOT NULL DEFAULT '',
  booted_at    INTEGER NOT NULL DEFAULT 0,
  joined_at    INTEGER NOT NULL DEFAULT 0,
  deadline     INTEGER NOT NULL DEFAULT 0,
  health       BLOB,
  health_at    INTEGER NOT NULL DEFAULT 0,
  drained      INTEGER NOT NULL DEFAULT 0,
  drain_forced INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE events (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  at         INTEGER NOT NULL,
  server     TEXT NOT NULL REFERENCES servers(name),
  from_state TEXT NOT NULL,
  to_state   TEXT NOT NULL,
  epoch      INTEGER NOT NULL,
  cause      TEXT NOT NULL
) STRICT;
CREATE TABLE tickets (
  hash      BLOB PRIMARY KEY,
  server    TEXT NOT NULL REFERENCES servers(name),
  epoch     INTEGER NOT NULL,
  not_after INTEGER NOT NULL,
  used_at   INTEGER NOT NULL DEFAULT 0,
  revoked   INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE revoked_lives (
  server TEXT NOT NULL REFERENCES servers(name),
  epoch  INTEGER NOT NULL,
  at     INTEGER NOT NULL,
  PRIMARY KEY (server, epoch)
) STRICT;
CREATE TABLE failures (
  server TEXT NOT NULL REFERENCES servers(name),
  epoch  INTEGER NOT NULL,
  reason TEXT NOT NULL,
  detail TEXT NOT NULL,
  at     INTEGER NOT NULL,
  PRIMARY KEY (server, epoch)
) STRICT;
CREATE TABLE drains (
  server   TEXT PRIMARY KEY REFERENCES servers(name),
  epoch    INTEGER NOT NULL,
  limit_ns INTEGER NOT NULL
) STRICT;
CREATE TABLE runs (
  id     INTEGER PRIMARY KEY AUTOINCREMENT,
  plan   BLOB NOT NULL,
  began  INTEGER NOT NULL,
  ended  INTEGER NOT NULL DEFAULT 0,
  result TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE TABLE journal (
  id      INTEGER PRIMARY KEY AUTOINCREMENT,
  run     INTEGER NOT NULL REFERENCES runs(id),
  at      INTEGER NOT NULL,
  server  TEXT NOT NULL REFERENCES servers(name),
  epoch   INTEGER NOT NULL,
  step    TEXT NOT NULL,
  outcome TEXT NOT NULL,
  detail  TEXT NOT NULL
) STRICT;
CREATE INDEX journal_of_server ON journal (server, id);
CREATE UNIQUE INDEX one_open_run ON runs (ended) WHERE ended = 0;
`

// schema2 is what version 2 adds: the newest policy version that was acted under.
const schema2 = `
CREATE TABLE policy (
  id      INTEGER PRIMARY KEY CHECK (id = 1),
  version INTEGER NOT NULL
) STRICT;
`

// schema3 is what version 3 adds: lives that an engineer was let onto.
const schema3 = `
CREATE TABLE taints (
  server TEXT PRIMARY KEY REFERENCES servers(name),
  epoch  INTEGER NOT NULL,
  at     INTEGER NOT NULL,
  until  INTEGER NOT NULL,
  reason TEXT NOT NULL
) STRICT;
`

// schema4 is what version 4 adds: the engineers' logins that servers report.
const schema4 = `
CREATE TABLE logins (
  id     INTEGER PRIMARY KEY AUTOINCREMENT,
  server TEXT NOT NULL REFERENCES servers(name),
  epoch  INTEGER NOT NULL,
  number INTEGER NOT NULL,
  at     INTEGER NOT NULL,
  seen   INTEGER NOT NULL,
  user   TEXT NOT NULL,
  method TEXT NOT NULL,
  key    TEXT NOT NULL,
  peer   TEXT NOT NULL,
  unread TEXT NOT NULL,
  missed INTEGER NOT NULL,
  UNIQUE (server, epoch, number)
) STRICT;
CREATE INDEX logins_of_server ON logins (server, id);
`

// schema5 is what version 5 adds: what is known of a life's boot.
const schema5 = `
ALTER TABLE servers ADD COLUMN evidence TEXT NOT NULL DEFAULT '';
`

// schema6 is what version 6 adds: lives that approvers let go on beyond their deadline, with what they signed.
const schema6 = `
CREATE TABLE extensions (
  server    TEXT PRIMARY KEY REFERENCES servers(name),
  epoch     INTEGER NOT NULL,
  statement BLOB NOT NULL,
  sig       BLOB NOT NULL
) STRICT;
`

// schema7 is what version 7 adds: orders to servers without a BMC.
const schema7 = `
CREATE TABLE restarts (
  server    TEXT PRIMARY KEY REFERENCES servers(name),
  epoch     INTEGER NOT NULL,
  file      BLOB NOT NULL,
  sig       BLOB NOT NULL,
  not_after INTEGER NOT NULL,
  delivered INTEGER NOT NULL
) STRICT;
`

// schema8 is what version 8 adds: claims, cancelled runs, ends of rotations, pauses, and what is known of releases.
const schema8 = `
CREATE TABLE claims (
  server  TEXT PRIMARY KEY, -- or a name that begins with store.Shared, and is no server's
  token   INTEGER NOT NULL,
  holder  TEXT NOT NULL,
  expires INTEGER NOT NULL
) STRICT;
ALTER TABLE runs ADD COLUMN cancelled INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN cancelled_by TEXT NOT NULL DEFAULT '';
CREATE TABLE outcomes (
  server    TEXT NOT NULL REFERENCES servers(name),
  epoch     INTEGER NOT NULL,
  run       INTEGER NOT NULL,
  release   TEXT NOT NULL,
  served    INTEGER NOT NULL,
  restarted INTEGER NOT NULL,
  attempts  INTEGER NOT NULL,
  failed    INTEGER NOT NULL,
  reason    TEXT NOT NULL,
  at        INTEGER NOT NULL,
  PRIMARY KEY (server, epoch)
) STRICT;
CREATE INDEX outcomes_at ON outcomes (at);
CREATE TABLE pause (
  id      INTEGER PRIMARY KEY CHECK (id = 1),
  paused  INTEGER NOT NULL,
  by_whom TEXT NOT NULL,
  why     TEXT NOT NULL,
  at      INTEGER NOT NULL
) STRICT;
CREATE TABLE uses (
  id      INTEGER PRIMARY KEY AUTOINCREMENT,
  version INTEGER NOT NULL,
  digest  TEXT NOT NULL,
  by_whom TEXT NOT NULL,
  at      INTEGER NOT NULL
) STRICT;
CREATE TABLE marks (
  version INTEGER NOT NULL,
  digest  TEXT NOT NULL,
  mark    TEXT NOT NULL,
  why     TEXT NOT NULL,
  by_whom TEXT NOT NULL,
  at      INTEGER NOT NULL,
  PRIMARY KEY (version, digest)
) STRICT;
`

// schema9 is what version 9 adds: the least number that a server's next life may have, in a store that was restored.
const schema9 = `
ALTER TABLE servers ADD COLUMN epoch_floor INTEGER NOT NULL DEFAULT 0;
`

// schemas are what each version adds to the one before.
var schemas = []string{schema1, schema2, schema3, schema4, schema5, schema6, schema7, schema8, schema9}

// What a version of the schema brought.
const (
	schemaPolicy   = 2
	schemaTaints   = 3
	schemaLogins   = 4
	schemaEvidence = 5
	schemaExtended = 6
	schemaRestarts = 7
	schemaClaims   = 8
	schemaFloor    = 9
)

// header is what says whose a database is.
type header struct{ app, version, tables int }

func readHeader(ctx context.Context, q queryer) (h header, err error) {
	err = q.QueryRowContext(ctx, "SELECT (SELECT application_id FROM pragma_application_id), (SELECT user_version FROM pragma_user_version), (SELECT count(*) FROM sqlite_schema)").Scan(&h.app, &h.version, &h.tables)
	return h, err
}

func (h header) empty() bool { return h == header{} }

// check refuses any file that is not this program's.
func (h header) check() error {
	switch {
	case h.app != applicationID:
		return hint.New(errors.New("it is a database of another program"), "give the directory that fleetctl init made")
	case h.version > schemaVersion:
		return hint.New(fmt.Errorf("its schema is version %d and this program knows %d: %w", h.version, schemaVersion, store.ErrNewer), "use the newer fleetctl that wrote it")
	case h.version < 1:
		return fmt.Errorf("its schema is version %d, which nothing can bring to %d", h.version, schemaVersion)
	}
	return nil
}

// migrate makes the schema in an empty file, brings an older one up, and refuses any that is not this program's.
func (s *Store) migrate(ctx context.Context) error {
	return s.write(ctx, func(tx *sql.Tx) error {
		h, err := readHeader(ctx, tx)
		s.version = schemaVersion
		switch {
		case err != nil:
			return err
		case h.empty():
			_, err := tx.ExecContext(ctx, fmt.Sprintf("%s PRAGMA application_id = %d; PRAGMA user_version = %d;", strings.Join(schemas, ""), applicationID, schemaVersion))
			return err
		}
		if err := h.check(); err != nil || h.version == schemaVersion {
			return err
		}
		_, err = tx.ExecContext(ctx, fmt.Sprintf("%s PRAGMA user_version = %d;", strings.Join(schemas[h.version:], ""), schemaVersion))
		return err
	})
}

// recognize is migrate of a store that is only read.
func (s *Store) recognize(ctx context.Context) error {
	h, err := readHeader(ctx, s.db)
	if err != nil {
		return err
	}
	if h.empty() {
		return fmt.Errorf("it is empty: %w", fs.ErrNotExist) // whoever makes it has not got so far
	}
	s.version = h.version
	return h.check()
}

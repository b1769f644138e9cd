package store

import (
	"context"
	"database/sql"
	"fmt"

	"mayfly/internal/hint"
)

// Specification constants of the file.
const (
	applicationID = 0x6d61796c // "mayl" in SQLite's header: this file is mayfly's
	schemaVersion = 1
)

// schema of version 1. Times are nanoseconds since 1970, 0 for none.
const schema = `
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

// migrate makes the schema in an empty file and refuses any that is not this program's.
func (s *Store) migrate(ctx context.Context) error {
	return s.write(ctx, func(tx *sql.Tx) error {
		var app, version, tables int
		err := tx.QueryRowContext(ctx, "SELECT (SELECT application_id FROM pragma_application_id), (SELECT user_version FROM pragma_user_version), (SELECT count(*) FROM sqlite_schema)").Scan(&app, &version, &tables)
		switch {
		case err != nil:
			return err
		case app == 0 && version == 0 && tables == 0:
			_, err := tx.ExecContext(ctx, fmt.Sprintf("%s PRAGMA application_id = %d; PRAGMA user_version = %d;", schema, applicationID, schemaVersion))
			return err
		case app != applicationID:
			return hint.New(fmt.Errorf("it is a database of another program"), "give the directory that fleetctl init made")
		case version > schemaVersion:
			return hint.New(fmt.Errorf("its schema is version %d and this program knows %d", version, schemaVersion), "use the newer fleetctl that wrote it")
		case version < schemaVersion:
			return fmt.Errorf("its schema is version %d, which nothing can bring to %d", version, schemaVersion)
		}
		return nil
	})
}

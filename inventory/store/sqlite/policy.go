package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"mayfly/inventory/store"
)

// PolicyVersion is the newest policy version that was ever acted under; 0 for none.
func (s *Store) PolicyVersion(ctx context.Context) (uint64, error) {
	if !s.has(schemaPolicy) {
		return 0, nil // opened for reading, and written before this was remembered
	}
	return policyVersion(ctx, s.db)
}

func policyVersion(ctx context.Context, q queryer) (uint64, error) {
	var v int64
	if err := q.QueryRowContext(ctx, "SELECT coalesce(max(version), 0) FROM policy").Scan(&v); err != nil {
		return 0, fmt.Errorf("reading the policy's version: %w", err)
	}
	return uint64(v), nil
}

// ActUnder remembers that a policy of this version is acted under from now on, or fails with store.ErrPolicyOlder.
func (s *Store) ActUnder(ctx context.Context, version uint64) error {
	if version > math.MaxInt64 {
		return fmt.Errorf("policy version %d is out of range", version)
	}
	return s.write(ctx, func(tx *sql.Tx) error {
		have, err := policyVersion(ctx, tx)
		if err != nil {
			return err
		}
		if version < have {
			return fmt.Errorf("version %d is older than %d: %w", version, have, store.ErrPolicyOlder)
		}
		if version == have {
			return nil
		}
		_, err = tx.ExecContext(ctx, "INSERT INTO policy (id, version) VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET version = excluded.version", int64(version))
		return err
	})
}

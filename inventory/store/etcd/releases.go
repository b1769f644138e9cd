package etcd

import (
	"context"
	"fmt"
	"math"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"mayfly/inventory/store"
)

// UseRelease says which release servers are to run from now on; store.ErrBad for one that is marked bad.
func (s *Store) UseRelease(ctx context.Context, u store.Use) error {
	mark := s.markKey(u.Version, u.Digest)
	utc(&u.At)
	_, err := s.change(ctx, "", []string{mark}, func(c *change) error {
		var m store.Mark
		if ok, err := c.has(mark, &m); err != nil {
			return err
		} else if ok && m.Mark == store.Bad {
			return fmt.Errorf("%s: %w", m.Why, store.ErrBad)
		}
		c.put(s.key(keyUse), u)
		return nil
	})
	if err != nil {
		return fmt.Errorf("using release %d: %w", u.Version, err)
	}
	return nil
}

// InUse returns what UseRelease said last, if anything.
func (s *Store) InUse(ctx context.Context) (u store.Use, ok bool, err error) {
	if ok, err = s.get(ctx, s.key(keyUse), &u); err != nil {
		return store.Use{}, false, fmt.Errorf("reading the release in use: %w", err)
	}
	utc(&u.At)
	return u, ok, nil
}

// MarkRelease marks a release. One that is bad stays bad; the first mark of a kind stands.
func (s *Store) MarkRelease(ctx context.Context, m store.Mark) error {
	key := s.markKey(m.Version, m.Digest)
	utc(&m.At)
	_, err := s.change(ctx, "", []string{key}, func(c *change) error {
		var have store.Mark
		ok, err := c.has(key, &have)
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
		c.put(key, m)
		return nil
	})
	if err != nil {
		return fmt.Errorf("marking release %d: %w", m.Version, err)
	}
	return nil
}

// Marks returns all marks, by version.
func (s *Store) Marks(ctx context.Context) ([]store.Mark, error) {
	var all []store.Mark
	_, err := s.each(ctx, s.key(keyMark), 0, func(kv *mvccpb.KeyValue) error {
		var m store.Mark
		err := decode(kv, &m)
		utc(&m.At)
		all = append(all, m)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading what is known of releases: %w", err)
	}
	return all, nil
}

// PolicyVersion is the newest policy version that was ever acted under; 0 for none.
func (s *Store) PolicyVersion(ctx context.Context) (v uint64, err error) {
	if _, err = s.get(ctx, s.key(keyPolicy), &v); err != nil {
		return 0, fmt.Errorf("reading the policy's version: %w", err)
	}
	return v, nil
}

// ActUnder remembers that a policy of this version is acted under from now on, or fails with store.ErrPolicyOlder.
func (s *Store) ActUnder(ctx context.Context, version uint64) error {
	if version > math.MaxInt64 {
		return fmt.Errorf("policy version %d is out of range", version)
	}
	_, err := s.change(ctx, "", []string{s.key(keyPolicy)}, func(c *change) error {
		var have uint64
		if _, err := c.has(s.key(keyPolicy), &have); err != nil {
			return err
		}
		if version < have {
			return fmt.Errorf("version %d is older than %d: %w", version, have, store.ErrPolicyOlder)
		}
		if version > have {
			c.put(s.key(keyPolicy), version)
		}
		return nil
	})
	return err
}

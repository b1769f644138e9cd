package etcd

import (
	"context"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"mayfly/inventory/store"
)

// OrderDrain asks a server's current life to drain.
func (s *Store) OrderDrain(ctx context.Context, name string, epoch uint64, limit time.Duration) error {
	return s.order(ctx, name, epoch, keyDrain, store.DrainOrder{Epoch: epoch, Limit: limit})
}

// order lays down something for a server's current life.
func (s *Store) order(ctx context.Context, name string, epoch uint64, kind string, v any) error {
	_, err := s.change(ctx, name, []string{s.key(keyServer, name)}, func(c *change) error {
		r, err := c.record(name)
		if err != nil {
			return err
		}
		if r.Epoch != epoch {
			return fmt.Errorf("ordering: %w", stale(r, epoch, ""))
		}
		c.put(s.key(kind, name), v)
		return nil
	})
	return err
}

// byServer reads what each server has of a kind.
func byServer[T any](ctx context.Context, s *Store, kind string, at int64, mend func(*T)) (map[string]T, error) {
	all := map[string]T{}
	_, err := s.each(ctx, s.key(kind), at, func(kv *mvccpb.KeyValue) error {
		var v T
		if err := decode(kv, &v); err != nil {
			return err
		}
		mend(&v)
		all[strings.TrimPrefix(string(kv.Key), s.key(kind))] = v
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading orders: %w", err)
	}
	return all, nil
}

// Drains returns the orders that stand, by server. One ends with its life.
func (s *Store) Drains(ctx context.Context) (map[string]store.DrainOrder, error) {
	return byServer(ctx, s, keyDrain, 0, func(*store.DrainOrder) {})
}

// BootFailed records why a life did not come up. The first report of a life stands: it is the cause.
func (s *Store) BootFailed(ctx context.Context, name string, epoch uint64, reason, detail string, at time.Time) error {
	key := s.lifeKey(keyFailure, name, epoch)
	_, err := s.change(ctx, name, []string{s.key(keyServer, name), key}, func(c *change) error {
		if _, err := c.record(name); err != nil {
			return err
		}
		if c.read[key] == nil {
			c.put(key, store.Failure{Server: name, Epoch: epoch, Reason: reason, Detail: detail, At: at.UTC()})
		}
		return nil
	})
	return err
}

// LastFailure returns why a life did not come up, if it said so.
func (s *Store) LastFailure(ctx context.Context, name string, epoch uint64) (reason, detail string, ok bool, err error) {
	var f store.Failure
	ok, err = s.get(ctx, s.lifeKey(keyFailure, name, epoch), &f)
	if err != nil {
		return "", "", false, fmt.Errorf("reading boot failure of server %q: %w", name, err)
	}
	return f.Reason, f.Detail, ok, nil
}

// OrderRestart lays down an order for the server's current life.
func (s *Store) OrderRestart(ctx context.Context, name string, r store.Restart) error {
	r.NotAfter, r.Delivered = r.NotAfter.UTC(), time.Time{}
	return s.order(ctx, name, r.Epoch, keyRestart, r)
}

// RestartDelivered says that the order was written to the stream of this life.
func (s *Store) RestartDelivered(ctx context.Context, name string, epoch uint64, at time.Time) error {
	key := s.key(keyRestart, name)
	_, err := s.change(ctx, name, []string{key}, func(c *change) error {
		var r store.Restart
		ok, err := c.has(key, &r)
		if err != nil || !ok || r.Epoch != epoch || !r.Delivered.IsZero() {
			return err
		}
		r.Delivered = at.UTC()
		c.put(key, r)
		return nil
	})
	if err != nil {
		return fmt.Errorf("recording the order to server %q: %w", name, err)
	}
	return nil
}

// Restarts returns the newest order of each server that has one.
func (s *Store) Restarts(ctx context.Context) (map[string]store.Restart, error) {
	return byServer(ctx, s, keyRestart, 0, restartInUTC)
}

func restartInUTC(r *store.Restart) { utc(&r.NotAfter, &r.Delivered) }

// Extend keeps an extension for delivery to the server's current life, and moves the life's deadline.
func (s *Store) Extend(ctx context.Context, name string, until time.Time, e store.Extension) error {
	_, err := s.change(ctx, name, []string{s.key(keyServer, name)}, func(c *change) error {
		r, err := c.record(name)
		if err != nil {
			return err
		}
		if r.Epoch != e.Epoch {
			return fmt.Errorf("extending a life: %w", stale(r, e.Epoch, ""))
		}
		if r.Extended = true; until.After(r.Deadline) {
			r.Deadline = until.UTC()
		}
		c.save(r)
		c.put(s.key(keyExtension, name), e)
		return nil
	})
	return err
}

// Extensions returns the newest extension of each server that has one.
func (s *Store) Extensions(ctx context.Context) (map[string]store.Extension, error) {
	return byServer(ctx, s, keyExtension, 0, func(*store.Extension) {})
}

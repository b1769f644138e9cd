package etcd

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"mayfly/inventory/store"
)

// maxLogins is how many logins of one server are kept; those heard of first are dropped.
const maxLogins = 10_000

func (s *shared) loginKey(l store.Login) string {
	return s.key(keyLogin, l.Server, "/", number(l.Epoch), "/", number(l.Number))
}

// AddLogin keeps a login, once: fresh is false for one that is there already.
func (s *Store) AddLogin(ctx context.Context, l store.Login) (fresh bool, err error) {
	key := s.loginKey(l)
	utc(&l.At, &l.Seen)
	_, err = s.change(ctx, l.Server, []string{key, s.key(keyServer, l.Server)}, func(c *change) error {
		if _, err := c.record(l.Server); err != nil {
			return err
		}
		if fresh = c.read[key] == nil; fresh {
			c.put(key, l)
		}
		return nil
	})
	if err != nil || !fresh {
		return false, err
	}
	if err := s.dropLogins(ctx, s.key(keyLogin, l.Server, "/")); err != nil {
		return true, fmt.Errorf("dropping old logins of server %q: %w", l.Server, err)
	}
	return true, nil
}

// dropLogins drops what is beyond the bound.
func (s *Store) dropLogins(ctx context.Context, prefix string) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	r, err := s.client.Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil || r.Count <= maxLogins {
		return unreachable(err)
	}
	old, err := s.client.Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly(),
		clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortAscend), clientv3.WithLimit(r.Count-maxLogins))
	if err != nil {
		return unreachable(err)
	}
	for _, kv := range old.Kvs {
		if _, err := s.client.Delete(ctx, string(kv.Key)); err != nil {
			return unreachable(err)
		}
	}
	return nil
}

// Logins returns the logins that the controller heard of at since or later, in the order in which it did.
func (s *Store) Logins(ctx context.Context, since time.Time) ([]store.Login, error) {
	return s.logins(ctx, since, 0)
}

func (s *Store) logins(ctx context.Context, since time.Time, at int64) ([]store.Login, error) {
	type kept struct {
		store.Login
		created int64
	}
	var all []kept
	_, err := s.each(ctx, s.key(keyLogin), at, func(kv *mvccpb.KeyValue) error {
		k := kept{created: kv.CreateRevision}
		if err := decode(kv, &k.Login); err != nil {
			return err
		}
		if utc(&k.At, &k.Seen); !k.Seen.Before(since) {
			all = append(all, k)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading logins: %w", err)
	}
	slices.SortStableFunc(all, func(a, b kept) int { return cmp.Compare(a.created, b.created) })
	var list []store.Login
	for _, k := range all {
		list = append(list, k.Login)
	}
	return list, nil
}

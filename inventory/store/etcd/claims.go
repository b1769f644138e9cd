package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"mayfly/inventory/store"
)

// claim is what the key of a claim holds. The key is bound to the lease, and gone when that ends.
type claim struct {
	Holder string        `json:"holder"`
	Lease  int64         `json:"lease"`
	TTL    time.Duration `json:"ttl_ns"`
}

// Claim takes the server, or fails with store.ErrClaimed while etcd keeps another holder's lease. now says when the claim ends at the
// earliest; when it does end is said by etcd's clock alone, which no controller's clock can put forward.
func (s *Store) Claim(ctx context.Context, name, holder string, ttl time.Duration, now time.Time) (store.Claim, error) {
	c, err := s.claim(ctx, name, holder, ttl, now)
	if err != nil {
		return store.Claim{}, fmt.Errorf("claiming server %q: %w", name, err)
	}
	return c, nil
}

func (s *Store) claim(ctx context.Context, name, holder string, ttl time.Duration, now time.Time) (store.Claim, error) {
	if s.readOnly {
		return store.Claim{}, errReadOnly
	}
	limited, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	lease, err := s.client.Grant(limited, int64((ttl+time.Second-1)/time.Second))
	if err != nil {
		return store.Claim{}, unreachable(err)
	}
	var before claim
	key := s.key(keyClaim, name)
	keys := []string{key}
	if !strings.HasPrefix(name, store.Shared) {
		keys = append(keys, s.key(keyServer, name))
	}
	token, err := (&Store{shared: s.shared}).change(ctx, name, keys, func(c *change) error {
		if len(keys) > 1 {
			if _, err := c.record(name); err != nil {
				return err
			}
		}
		before = claim{}
		if there, err := c.has(key, &before); err != nil {
			return err
		} else if there && before.Holder != holder {
			return fmt.Errorf("%s: %w", before.Holder, store.ErrClaimed)
		}
		c.put(key, claim{Holder: holder, Lease: int64(lease.ID), TTL: ttl}, clientv3.WithLease(lease.ID))
		return nil
	})
	if err != nil {
		s.end(ctx, lease.ID)
		return store.Claim{}, err
	}
	if before.Lease != 0 {
		s.end(ctx, clientv3.LeaseID(before.Lease))
	}
	return store.Claim{Server: name, Holder: holder, Token: uint64(token), Expires: now.Add(ttl)}, nil
}

// end ends a lease that nothing hangs on any more. One that cannot be ended ends by itself.
func (s *shared) end(ctx context.Context, lease clientv3.LeaseID) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), dialLimit)
	defer cancel()
	_, _ = s.client.Revoke(ctx, lease)
}

// Renew lets a claim go on, or fails with store.ErrFenced once its lease has ended or another claim was made.
func (s *Store) Renew(ctx context.Context, c store.Claim, ttl time.Duration, now time.Time) (store.Claim, error) {
	if s.readOnly {
		return store.Claim{}, errReadOnly
	}
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	r, err := s.client.Get(ctx, s.key(keyClaim, c.Server))
	if err != nil {
		return store.Claim{}, fmt.Errorf("renewing the claim of server %q: %w", c.Server, unreachable(err))
	}
	if len(r.Kvs) == 0 || r.Kvs[0].ModRevision != int64(c.Token) {
		return store.Claim{}, fmt.Errorf("renewing the claim of server %q: %w", c.Server, store.ErrFenced)
	}
	var have claim
	if err := decode(r.Kvs[0], &have); err != nil {
		return store.Claim{}, err
	}
	alive, err := s.client.KeepAliveOnce(ctx, clientv3.LeaseID(have.Lease))
	if errors.Is(err, rpctypes.ErrLeaseNotFound) || err == nil && alive.TTL <= 0 || have.Holder != c.Holder {
		return store.Claim{}, fmt.Errorf("renewing the claim of server %q: %w", c.Server, store.ErrFenced)
	}
	if err != nil {
		return store.Claim{}, fmt.Errorf("renewing the claim of server %q: %w", c.Server, unsure(err))
	}
	c.Expires = now.Add(min(ttl, time.Duration(alive.TTL)*time.Second))
	return c, nil
}

// Release ends a claim.
func (s *Store) Release(ctx context.Context, c store.Claim) error {
	key := s.key(keyClaim, c.Server)
	var have claim
	_, err := (&Store{shared: s.shared}).change(ctx, c.Server, []string{key}, func(x *change) error {
		have = claim{}
		ok, err := x.has(key, &have)
		if err == nil && ok && x.read[key].ModRevision == int64(c.Token) {
			x.remove(key)
			return nil
		}
		have = claim{}
		return err
	})
	if err != nil {
		return fmt.Errorf("releasing the claim of server %q: %w", c.Server, err)
	}
	if have.Lease != 0 {
		s.end(ctx, clientv3.LeaseID(have.Lease))
	}
	return nil
}

// Claims returns those whose leases etcd keeps, by server, each with the end that it has if it was renewed now.
func (s *Store) Claims(ctx context.Context, now time.Time) ([]store.Claim, error) {
	var all []store.Claim
	_, err := s.each(ctx, s.key(keyClaim), 0, func(kv *mvccpb.KeyValue) error {
		var c claim
		if err := decode(kv, &c); err != nil {
			return err
		}
		all = append(all, store.Claim{Server: strings.TrimPrefix(string(kv.Key), s.key(keyClaim)), Holder: c.Holder, Token: uint64(kv.ModRevision), Expires: now.Add(c.TTL)})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading claims: %w", err)
	}
	return all, nil
}

// Fenced is the same store for the holder of c.
func (s *Store) Fenced(c store.Claim) store.Store { return &Store{shared: s.shared, fence: &c} }

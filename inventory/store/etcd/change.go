package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"mayfly/internal/hint"
	"mayfly/inventory/store"
)

var (
	errReadOnly = errors.New("the store was opened for reading")
	errAgain    = errors.New("decide again") // f of change asks for another attempt
)

// change is one change: what was read for it, and what it writes if none of that has changed.
type change struct {
	ctx  context.Context
	s    *Store
	rev  int64 // at which was read
	read map[string]*mvccpb.KeyValue
	cmps []clientv3.Cmp
	ops  []clientv3.Op
	err  error // of put
}

// change reads keys at one revision, has f decide, and writes what f put, if no key that was read has changed since; otherwise f decides
// again. server is whose data it is: the view of another claim's holder fails. It returns the revision of the change.
func (s *Store) change(ctx context.Context, server string, keys []string, f func(*change) error) (int64, error) {
	if s.readOnly {
		return 0, errReadOnly
	}
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	fenced := s.fence != nil && s.fence.Server == server
	if fenced {
		keys = append(keys[:len(keys):len(keys)], s.key(keyClaim, server))
	}
	for attempt := 0; ; attempt++ {
		c, err := s.begin(ctx, keys)
		if err != nil {
			return 0, err
		}
		if kv := c.read[s.key(keyClaim, server)]; fenced && (kv == nil || kv.ModRevision != int64(s.fence.Token)) {
			return 0, fmt.Errorf("server %q, claim %d of %s: %w", server, s.fence.Token, s.fence.Holder, store.ErrFenced)
		}
		err = f(c)
		if err == nil {
			err = c.err
		}
		switch {
		case errors.Is(err, errAgain):
		case err != nil:
			return 0, err
		case len(c.ops) == 0:
			return c.rev, nil
		default:
			r, err := s.client.Txn(ctx).If(c.cmps...).Then(c.ops...).Commit()
			if err != nil {
				return 0, unsure(err)
			}
			if r.Succeeded {
				return r.Header.Revision, nil
			}
		}
		select {
		case <-ctx.Done():
			return 0, hint.New(fmt.Errorf("others changed the same %d times: %w", attempt+1, ctx.Err()), "nothing was changed: try again")
		case <-time.After(time.Duration(rand.Int64N(int64(min(attempt+1, 20)))) * time.Millisecond):
		}
	}
}

// begin reads keys at one revision.
func (s *Store) begin(ctx context.Context, keys []string) (*change, error) {
	var gets []clientv3.Op
	for _, k := range keys {
		gets = append(gets, clientv3.OpGet(k))
	}
	r, err := s.client.Txn(ctx).Then(gets...).Commit()
	if err != nil {
		return nil, unreachable(err)
	}
	c := &change{ctx: ctx, s: s, rev: r.Header.Revision, read: map[string]*mvccpb.KeyValue{}}
	for i, k := range keys {
		var mod int64
		if kvs := r.Responses[i].GetResponseRange().Kvs; len(kvs) > 0 {
			c.read[k], mod = kvs[0], kvs[0].ModRevision
		}
		c.cmps = append(c.cmps, clientv3.Compare(clientv3.ModRevision(k), "=", mod))
	}
	return c, nil
}

// has reads a key's value into v, and reports whether the key is there.
func (c *change) has(key string, v any) (bool, error) {
	kv := c.read[key]
	if kv == nil {
		return false, nil
	}
	return true, decode(kv, v)
}

func (c *change) put(key string, v any, opts ...clientv3.OpOption) {
	data, err := json.Marshal(v)
	c.err = errors.Join(c.err, err)
	c.ops = append(c.ops, clientv3.OpPut(key, string(data), opts...))
}

func (c *change) remove(key string) { c.ops = append(c.ops, clientv3.OpDelete(key)) }

// absent compares that a key is not there.
func absent(key string) clientv3.Cmp { return clientv3.Compare(clientv3.CreateRevision(key), "=", 0) }

// get reads one key's value into v, and reports whether the key is there.
func (s *Store) get(ctx context.Context, key string, v any) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	r, err := s.client.Get(ctx, key)
	if err != nil {
		return false, unreachable(err)
	}
	if len(r.Kvs) == 0 {
		return false, nil
	}
	return true, decode(r.Kvs[0], v)
}

// each calls f with the keys below a prefix in order, as they are at one revision: at, or now with 0. It returns the revision.
func (s *Store) each(ctx context.Context, prefix string, at int64, f func(kv *mvccpb.KeyValue) error) (int64, error) {
	return s.pages(ctx, prefix, at, func(kvs []*mvccpb.KeyValue) error {
		for _, kv := range kvs {
			if err := f(kv); err != nil {
				return err
			}
		}
		return nil
	})
}

// pages is each, page by page.
func (s *Store) pages(ctx context.Context, prefix string, at int64, f func(kvs []*mvccpb.KeyValue) error) (int64, error) {
	from, end := prefix, clientv3.GetPrefixRangeEnd(prefix)
	for {
		page, cancel := context.WithTimeout(ctx, callLimit)
		r, err := s.client.Get(page, from, clientv3.WithRange(end), clientv3.WithLimit(pageSize), clientv3.WithRev(at))
		cancel()
		if err != nil {
			return 0, unreachable(err)
		}
		if at == 0 {
			at = r.Header.Revision
		}
		if err := f(r.Kvs); err != nil {
			return 0, err
		}
		if !r.More || len(r.Kvs) == 0 {
			return at, nil
		}
		from = string(r.Kvs[len(r.Kvs)-1].Key) + "\x00"
	}
}

// last returns the number at the end of the last key below a prefix, 0 if there is none.
func (s *Store) last(ctx context.Context, prefix string) (int64, error) {
	r, err := s.client.Get(ctx, prefix, append(clientv3.WithLastKey(), clientv3.WithKeysOnly())...)
	if err != nil {
		return 0, unreachable(err)
	}
	if len(r.Kvs) == 0 {
		return 0, nil
	}
	return lastNumber(string(r.Kvs[0].Key))
}

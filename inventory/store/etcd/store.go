// Package etcd keeps the state store (package store) in etcd, where several controllers share it.
//
// Every change is one etcd transaction that compares the revisions of all it was decided from, and is decided anew if one of them
// changed. What changes a server's state compares and writes one guard key as well, so that a check of all servers holds when the
// change is made (docs/formats/store-etcd.md). A claim is bound to an etcd lease, which ends by etcd's clock; its token is the
// revision that made it, and what its holder writes compares that revision in the same transaction.
//
// Every call is bounded. When etcd has no quorum, or cannot be reached, calls fail, and say whether it is known that nothing was changed.
//
// Read store.go, change.go, record.go, lives.go, mirror.go, claims.go.
package etcd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"mayfly/internal/hint"
	"mayfly/inventory"
	"mayfly/inventory/store"
)

// Specification constants of the keys.
const layout = "1" // value of the key "version"

// Implementation constants.
const (
	callLimit     = 10 * time.Second // for one call, with all its attempts
	dialLimit     = 5 * time.Second
	pingEvery     = 10 * time.Second // a connection that is cut off in silence is found out
	pingLimit     = 5 * time.Second
	pageSize      = 5000 // keys of one read
	maxSend       = 2 << 20
	maxReceive    = 256 << 20
	mirrorPatient = 2 * time.Second // that a check waits for the mirror before it reads all servers
)

// Store is an open state store. It may be used by several goroutines.
type Store struct {
	*shared
	fence *store.Claim // set by Fenced
}

// shared is what a store and its fenced views have together.
type shared struct {
	client   *clientv3.Client
	prefix   string // of every key, ends in a slash
	readOnly bool
	moving   chan struct{} // one change of states at a time in this process: two would only make each other try again

	mirror   mirror
	reports  reports
	closing  context.CancelFunc
	closed   context.Context
	watching sync.WaitGroup
}

var _ store.Store = (*Store)(nil)

// Open opens the store at an address, and makes it if there is none. dir is the state directory with the certificates.
func Open(ctx context.Context, dir string, address inventory.StoreAddress) (*Store, error) {
	return open(ctx, dir, address, false, false)
}

// OpenReadOnly opens a store that is there for reading: whatever would change it fails. A store that is not there is fs.ErrNotExist.
func OpenReadOnly(ctx context.Context, dir string, address inventory.StoreAddress) (*Store, error) {
	return open(ctx, dir, address, true, false)
}

// OpenToImport is Open, but for a store with an import that did not end, which it empties.
func OpenToImport(ctx context.Context, dir string, address inventory.StoreAddress) (*Store, error) {
	return open(ctx, dir, address, false, true)
}

func open(ctx context.Context, dir string, address inventory.StoreAddress, readOnly, again bool) (*Store, error) {
	if len(address.Endpoints) == 0 {
		return nil, errors.New("opening store: no address")
	}
	tls, err := credentials(dir, address)
	if err != nil {
		return nil, fmt.Errorf("opening store %s: %w", address, err)
	}
	scheme := "https://"
	if tls == nil {
		scheme = "http://"
	}
	var endpoints []string
	for _, e := range address.Endpoints {
		endpoints = append(endpoints, scheme+e)
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints: endpoints, TLS: tls, DialTimeout: dialLimit, DialKeepAliveTime: pingEvery, DialKeepAliveTimeout: pingLimit, PermitWithoutStream: true,
		MaxCallSendMsgSize: maxSend, MaxCallRecvMsgSize: maxReceive, Logger: zap.NewNop(),
	})
	if err != nil {
		return nil, fmt.Errorf("opening store %s: %w", address, unreachable(err))
	}
	s := &Store{shared: &shared{client: client, prefix: address.Prefix + "/", readOnly: readOnly, moving: make(chan struct{}, 1)}}
	s.closed, s.closing = context.WithCancel(context.Background())
	if err := s.recognize(ctx, again); err != nil {
		return nil, errors.Join(fmt.Errorf("opening store %s: %w", address, err), s.Close())
	}
	return s, nil
}

// recognize refuses a store of a newer layout and keys of another program, and makes a store where nothing is.
func (s *Store) recognize(ctx context.Context, again bool) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	r, err := s.client.Txn(ctx).Then(clientv3.OpGet(s.key(keyVersion)), clientv3.OpGet(s.key(keyImporting)),
		clientv3.OpGet(s.prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())).Commit()
	if err != nil {
		return unreachable(err)
	}
	version, importing, all := r.Responses[0].GetResponseRange(), r.Responses[1].GetResponseRange(), r.Responses[2].GetResponseRange()
	switch {
	case len(version.Kvs) == 0 && all.Count > 0:
		return hint.New(fmt.Errorf("below %s are keys of another program", s.prefix), "give the fleet a prefix of its own in controller.store")
	case len(version.Kvs) > 0 && string(version.Kvs[0].Value) != layout:
		return hint.New(fmt.Errorf("its layout is version %.16q and this program knows %s: %w", version.Kvs[0].Value, layout, store.ErrNewer), "use the newer fleetctl that wrote it")
	case len(importing.Kvs) > 0 && !again:
		return hint.New(errors.New("an import into it did not end: nothing in it counts"), "`fleetctl restore` again, with the same file")
	case len(importing.Kvs) > 0:
		return s.empty(ctx)
	case len(version.Kvs) > 0:
		return nil
	case s.readOnly:
		return fmt.Errorf("it is empty: %w", fs.ErrNotExist)
	}
	_, err = s.client.Txn(ctx).If(absent(s.key(keyVersion))).Then(clientv3.OpPut(s.key(keyVersion), layout)).Commit()
	return unsure(err)
}

// Close closes the store.
func (s *Store) Close() error {
	s.closing()
	s.watching.Wait()
	return s.client.Close()
}

// unreachable says of an answer that did not come what can be known: of a read, that nothing was changed.
func unreachable(err error) error { return explain(err, "etcd does not answer") }

// unsure says it of a change.
func unsure(err error) error {
	return explain(err, "etcd does not answer, and it is not known whether the change was made")
}

func explain(err error, what string) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	code := status.Code(err)
	if errors.Is(err, context.DeadlineExceeded) || code == codes.DeadlineExceeded || code == codes.Unavailable || errors.Is(err, clientv3.ErrNoAvailableEndpoints) {
		return hint.New(fmt.Errorf("%s: %w", what, err), "see that a majority of its members run and can be reached from here (etcdctl endpoint status); with certificates, that they are of the right CA and have not expired")
	}
	return fmt.Errorf("etcd: %w", err)
}

package etcd

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"mayfly/inventory"
	"mayfly/inventory/store"
	"mayfly/inventory/store/etcd/etcdtest"
	"mayfly/inventory/store/storetest"
)

var cluster *etcdtest.Cluster

func TestMain(m *testing.M) { os.Exit(runAll(m)) }

func runAll(m *testing.M) int {
	dir, err := os.MkdirTemp("", "mayfly-etcd-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if cluster, err = etcdtest.Start(context.Background(), dir, 1); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer cluster.Stop()
	return m.Run()
}

var places atomic.Int64

// place is where no other test's store is.
func place(t testing.TB) inventory.StoreAddress {
	name := strings.Trim(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' {
			return r
		}
		return '-'
	}, strings.ToLower(t.Name())), "-")
	return cluster.Address(fmt.Sprintf("t/%s-%d", name, places.Add(1)))
}

func openAt(t testing.TB, a inventory.StoreAddress) *Store {
	t.Helper()
	s, err := Open(t.Context(), t.TempDir(), a)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

var kind = storetest.Kind{
	Open: func(t testing.TB) func(testing.TB) store.Store {
		a := place(t)
		return func(t testing.TB) store.Store { return openAt(t, a) }
	},
	Lapse: func(t testing.TB, s store.Store, c store.Claim) time.Time {
		lapse(t, s.(*Store), c)
		return c.Expires
	},
}

// lapse ends a claim's lease as etcd does when nobody renews it.
func lapse(t testing.TB, s *Store, c store.Claim) {
	t.Helper()
	r, err := s.client.Get(t.Context(), s.key(keyClaim, c.Server))
	if err != nil || len(r.Kvs) == 0 {
		t.Fatalf("no claim: %v", err)
	}
	var have claim
	if err := json.Unmarshal(r.Kvs[0].Value, &have); err != nil {
		t.Fatal(err)
	}
	if _, err := s.client.Revoke(t.Context(), clientv3.LeaseID(have.Lease)); err != nil {
		t.Fatal(err)
	}
}

func TestStore(t *testing.T) { storetest.Run(t, kind) }

func BenchmarkServers(b *testing.B) { storetest.BenchServers(b, kind) }

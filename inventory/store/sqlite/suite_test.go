package sqlite

import (
	"path/filepath"
	"testing"
	"time"

	"mayfly/inventory/store"
	"mayfly/inventory/store/storetest"
)

var kind = storetest.Kind{
	Open: func(t testing.TB) func(testing.TB) store.Store {
		path := filepath.Join(t.TempDir(), "store.db")
		return func(t testing.TB) store.Store { return openStore(t, path) }
	},
	Lapse: func(_ testing.TB, _ store.Store, c store.Claim) time.Time { return c.Expires },
}

func TestStore(t *testing.T) { storetest.Run(t, kind) }

func BenchmarkServers(b *testing.B) { storetest.BenchServers(b, kind) }

package main

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mayfly/internal/command"
	"mayfly/inventory"
	"mayfly/inventory/store"
	"mayfly/inventory/store/etcd/etcdtest"
	"mayfly/inventory/store/keeper"
)

// TestReleaseInUse: which release is in use and which is bad stands in the fleet's store, be it a file or etcd; a store that nobody has made yet says
// nothing, and is not made by asking.
func TestReleaseInUse(t *testing.T) {
	c, err := etcdtest.Start(t.Context(), t.TempDir(), 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Stop)
	for name, address := range map[string]inventory.StoreAddress{"sqlite": {}, "etcd": c.Address("lab")} {
		t.Run(name, func(t *testing.T) {
			ctx, now := t.Context(), time.Now()
			d := state(t.TempDir())
			if err := keeper.Remember(string(d), address); err != nil {
				t.Fatal(err)
			}
			if u, err := d.inUse(ctx); err != nil || u.Version != 0 {
				t.Errorf("before there is a store: got %+v, %v", u, err)
			}
			if err := errors.Join(d.use(ctx, store.Use{Version: 6, Digest: "6", At: now}), d.checkMark(ctx, 6, "6")); err != nil {
				t.Fatal(err)
			}
			if u, err := d.inUse(ctx); err != nil || u.Version != 0 || exists(filepath.Join(string(d), keeper.File)) {
				t.Errorf("a store was made by asking: got %+v, %v", u, err)
			}
			s, err := d.openStore(ctx)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}()
			if err := d.use(ctx, store.Use{Version: 7, Digest: "7", By: "ana", At: now}); err != nil {
				t.Fatal(err)
			}
			if u, err := d.inUse(ctx); err != nil || u.Version != 7 || u.By != "ana" {
				t.Errorf("got %+v, %v, want release 7", u, err)
			}
			if err := s.MarkRelease(ctx, store.Mark{Version: 8, Digest: "8", Mark: store.Bad, Why: "leaks", At: now}); err != nil {
				t.Fatal(err)
			}
			for what, err := range map[string]error{"checked": d.checkMark(ctx, 8, "8"), "used": d.use(ctx, store.Use{Version: 8, Digest: "8", At: now})} {
				if command.ExitCode(err) != command.Refused || !strings.Contains(err.Error(), "release_bad") || !strings.Contains(err.Error(), "leaks") {
					t.Errorf("a bad release is %s: got %v", what, err)
				}
			}
			if err := d.checkMark(ctx, 7, "7"); err != nil {
				t.Errorf("the one in use: %v", err)
			}
			if u, err := d.inUse(ctx); err != nil || u.Version != 7 {
				t.Errorf("after the refusals: got %+v, %v", u, err)
			}
		})
	}
}

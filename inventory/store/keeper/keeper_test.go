package keeper

import (
	"errors"
	"io/fs"
	"testing"

	"mayfly/inventory"
	"mayfly/inventory/store/etcd/etcdtest"
)

// TestMoved: a state directory that used one store is not led to another by its inventory alone.
func TestMoved(t *testing.T) {
	ctx := t.Context()
	c, err := etcdtest.Start(ctx, t.TempDir(), 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Stop)
	a, b, none := c.Address("a"), c.Address("b"), inventory.StoreAddress{}
	open := func(dir string, at inventory.StoreAddress) error {
		s, err := Open(ctx, dir, at)
		if err != nil {
			return err
		}
		return s.Close()
	}
	shared, alone := t.TempDir(), t.TempDir()
	if _, err := OpenReadOnly(ctx, shared, a); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a store that is not there: got %v, want %v", err, fs.ErrNotExist)
	}
	for name, err := range map[string]error{"etcd": open(shared, a), "etcd again": open(shared, a), "SQLite": open(alone, none), "SQLite again": open(alone, none)} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, err := range map[string]error{"another prefix": open(shared, b), "from etcd to SQLite": open(shared, none), "from SQLite to etcd": open(alone, a)} {
		if !errors.Is(err, ErrMoved) {
			t.Errorf("%s: got %v, want %v", name, err, ErrMoved)
		}
	}
	if _, err := OpenReadOnly(ctx, shared, none); !errors.Is(err, ErrMoved) {
		t.Errorf("for reading: got %v, want %v", err, ErrMoved)
	}
	if err := Remember(alone, a); err != nil {
		t.Fatal(err)
	}
	if err := open(alone, a); err != nil {
		t.Errorf("after it was moved: %v", err)
	}
	if err := Remember(alone, none); err != nil {
		t.Fatal(err)
	}
	if err := open(alone, none); err != nil {
		t.Errorf("and back: %v", err)
	}
}

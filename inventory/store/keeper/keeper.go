// Package keeper opens the store of a state directory, whichever kind it is: SQLite's file, or etcd where the inventory names it.
//
// A state directory remembers which store it uses, in the file store.address: an inventory that names another one does not lead its
// controller to a store that has forgotten everything. `fleetctl restore` moves the content of one into another, and writes the file.
package keeper

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/inventory"
	"mayfly/inventory/store"
	"mayfly/inventory/store/etcd"
	"mayfly/inventory/store/sqlite"
)

// Files of the state directory.
const (
	File        = "store.db"      // SQLite's
	AddressFile = "store.address" // of the store that is used, where that is etcd's
)

const maxAddress = 4 << 10

// ErrMoved is for an inventory that names another store than the state directory has used so far.
var ErrMoved = errors.New("store_moved: the inventory names another store than this state directory uses")

// Open opens the store of dir, and makes it if it is not there.
func Open(ctx context.Context, dir string, address inventory.StoreAddress) (store.Store, error) {
	if err := same(dir, address); err != nil {
		return nil, err
	}
	if len(address.Endpoints) == 0 {
		return result(sqlite.Open(ctx, filepath.Join(dir, File)))
	}
	s, err := etcd.Open(ctx, dir, address)
	if err != nil {
		return nil, err
	}
	if err := Remember(dir, address); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// OpenReadOnly opens a store that is there for reading: whatever would change it fails. One that is not there is fs.ErrNotExist.
func OpenReadOnly(ctx context.Context, dir string, address inventory.StoreAddress) (store.Store, error) {
	if err := same(dir, address); err != nil {
		return nil, err
	}
	if len(address.Endpoints) == 0 {
		return result(sqlite.OpenReadOnly(ctx, filepath.Join(dir, File)))
	}
	return result(etcd.OpenReadOnly(ctx, dir, address))
}

// OpenToImport opens an empty store, whatever dir has used so far.
func OpenToImport(ctx context.Context, dir string, address inventory.StoreAddress) (store.Store, error) {
	if len(address.Endpoints) == 0 {
		return result(sqlite.Open(ctx, filepath.Join(dir, File)))
	}
	return result(etcd.OpenToImport(ctx, dir, address))
}

// result is s as the interface, nil with an error.
func result[S store.Store](s S, err error) (store.Store, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Used returns the etcd store that dir uses, if that is what it uses.
func Used(dir string) (string, error) {
	data, err := durable.ReadRegular(filepath.Join(dir, AddressFile), maxAddress)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("reading which store is used: %w", err)
	}
	return strings.TrimSuffix(string(data), "\n"), nil
}

// Remember has dir use a store from now on.
func Remember(dir string, address inventory.StoreAddress) error {
	used, err := Used(dir)
	if err != nil || used == address.String() {
		return err
	}
	path := filepath.Join(dir, AddressFile)
	if len(address.Endpoints) == 0 {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return durable.SyncDir(dir)
	}
	return durable.WriteFile(path, []byte(address.String()+"\n"), 0o600)
}

// same refuses another place than the one that dir has used so far. Another host of the same cluster is the same place, if the prefix is.
func same(dir string, address inventory.StoreAddress) error {
	used, err := Used(dir)
	if err != nil {
		return err
	}
	have, err := inventory.ParseStoreAddress(used)
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(dir, AddressFile), err)
	}
	moved := func(from string) error {
		to := address.String()
		if to == "" {
			to = File
		}
		return hint.New(fmt.Errorf("%w: %s, not %s", ErrMoved, from, to), "`fleetctl backup` from the old one and `fleetctl restore` into the new one move what is in it; sign the inventory with the old one meanwhile")
	}
	switch {
	case used != "" && (len(address.Endpoints) == 0 || have.Prefix != address.Prefix || !share(have.Endpoints, address.Endpoints)):
		return moved(used)
	case used == "" && len(address.Endpoints) > 0:
		if _, err := os.Stat(filepath.Join(dir, File)); err == nil {
			return moved(File)
		}
	}
	return nil
}

// share reports whether two lists have something in common.
func share(a, b []string) bool {
	for _, x := range a {
		for _, y := range b {
			if x == y {
				return true
			}
		}
	}
	return false
}

package audit

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"errors"

	"golang.org/x/mod/sumdb/tlog"

	"mayfly/internal/durable"
)

// CheckpointFile and WitnessedFile are where a log has its newest checkpoint, and the newest that its witnesses cosigned, below its directory.
const (
	CheckpointFile = checkpointFile
	WitnessedFile  = witnessedFile
)

// Source returns a file of a log by its path below the log's directory: at most limit bytes, and an error that is fs.ErrNotExist if it is not there.
type Source func(path string, limit int64) ([]byte, error)

// Directory is a log in a directory.
func Directory(dir string) Source {
	return func(path string, limit int64) ([]byte, error) {
		return durable.ReadRegular(filepath.Join(dir, filepath.FromSlash(path)), limit)
	}
}

// Walk reads the entries of a log from its entry bundles, and nothing else of it: it hands each to yield, builds the tree anew, and hands the
// root hash at each of the sizes to root, which compares it with what was signed. It reads up to the largest size.
func Walk(src Source, sizes []uint64, yield func(index uint64, text []byte) error, root func(size uint64, root tlog.Hash) error) error {
	end := slices.Max(append([]uint64{0}, sizes...))
	// The last bundle is the one that is replaced while the log grows: it is read before the others, which stay.
	last := tile{entries: true, index: end / tileWidth, width: int(end % tileWidth)}
	var lastData []byte
	if last.width > 0 {
		var err error
		if lastData, err = bundle(src, last); err != nil {
			return err
		}
	}
	var t tree
	check := func() error {
		if slices.Contains(sizes, t.size) {
			return root(t.size, t.root())
		}
		return nil
	}
	if err := check(); err != nil {
		return err
	}
	for t.size < end {
		b := tile{entries: true, index: t.size / tileWidth, width: int(min(end-t.size, tileWidth))}
		data := lastData
		if b.width == tileWidth {
			var err error
			if data, err = bundle(src, b); err != nil {
				return err
			}
		}
		entries, err := parseBundle(data, b.width)
		if err != nil {
			return forged("%s: %w", b.path(), err)
		}
		for _, text := range entries {
			if err := yield(t.size, text); err != nil {
				return err
			}
			t.add(text, func(tile) {})
			if err := check(); err != nil {
				return err
			}
		}
	}
	return nil
}

// RootAt is the root hash of the log's first entries, by its tiles of hashes.
func RootAt(dir string, size uint64) (tlog.Hash, error) {
	t, err := loadTree(dir, size)
	if err != nil {
		return tlog.Hash{}, err
	}
	return t.root(), nil
}

// bundle reads an entry bundle of at least this width: that which was partial when the checkpoint was signed may be full by now.
func bundle(src Source, b tile) ([]byte, error) {
	data, err := src(b.path(), b.limit())
	if errors.Is(err, fs.ErrNotExist) && b.width < tileWidth {
		b.width = tileWidth
		data, err = src(b.path(), b.limit())
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", b.path(), err)
	}
	return data, nil
}

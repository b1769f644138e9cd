package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"mayfly/internal/durable"
)

// maxBundle bounds an entry bundle: as many entries as there may be, each as long as it may be.
const maxBundle = tileWidth * (2 + MaxEntry)

// path of a tile below the log's directory: c2sp.org/tlog-tiles.
func (t tile) path() string {
	p := t.stem()
	if t.width < tileWidth {
		p += ".p/" + strconv.Itoa(t.width)
	}
	return p
}

func (t tile) stem() string {
	kind := "entries"
	if !t.entries {
		kind = strconv.Itoa(t.level)
	}
	number := fmt.Sprintf("%03d", t.index%1000)
	for n := t.index / 1000; n > 0; n /= 1000 {
		number = fmt.Sprintf("x%03d/%s", n%1000, number)
	}
	return "tile/" + kind + "/" + number
}

func (t tile) limit() int64 {
	if t.entries {
		return maxBundle
	}
	return tileWidth * tlog.HashSize
}

// read returns a tile of at least this width. The writer replaces a partial tile by a wider one as the log grows.
func (t tile) read(dir string) ([]byte, error) {
	data, err := durable.ReadRegular(filepath.Join(dir, t.path()), t.limit())
	if !errors.Is(err, fs.ErrNotExist) {
		return data, err
	}
	missing := err
	wider := t
	wider.width = tileWidth
	if data, err = durable.ReadRegular(filepath.Join(dir, wider.path()), t.limit()); !errors.Is(err, fs.ErrNotExist) {
		return data, err
	}
	partial, err := os.ReadDir(filepath.Join(dir, t.stem()+".p"))
	if err != nil {
		return nil, missing
	}
	for _, file := range partial {
		if width, err := strconv.Atoi(file.Name()); err == nil && width > t.width && width < tileWidth {
			wider.width = width
			if data, err := durable.ReadRegular(filepath.Join(dir, wider.path()), t.limit()); err == nil {
				return data, nil
			}
		}
	}
	return nil, missing
}

// hashes reads a tile of hashes.
func (t tile) hashes(dir string) ([]tlog.Hash, error) {
	data, err := t.read(dir)
	if err != nil {
		return nil, err
	}
	if len(data) < t.width*tlog.HashSize {
		return nil, fmt.Errorf("%s: shorter than %d hashes", t.path(), t.width)
	}
	hashes := make([]tlog.Hash, t.width)
	for i := range hashes {
		copy(hashes[i][:], data[i*tlog.HashSize:])
	}
	return hashes, nil
}

// loadTree reads the right edge of a log of this size.
func loadTree(dir string, size uint64) (*tree, error) {
	t := &tree{size: size}
	if width := int(size % tileWidth); width > 0 {
		bundle := tile{entries: true, index: size / tileWidth, width: width}
		data, err := bundle.read(dir)
		if err != nil {
			return nil, err
		}
		entries, err := parseBundle(data, width)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", bundle.path(), err)
		}
		n := 0
		for _, e := range entries {
			n += 2 + len(e)
		}
		t.bundle = append([]byte(nil), data[:n]...)
	}
	for l, n := 0, size; n > 0; l, n = l+1, n/tileWidth {
		at := level{tile: n / tileWidth}
		if width := int(n % tileWidth); width > 0 {
			var err error
			if at.hashes, err = (tile{level: l, index: at.tile, width: width}).hashes(dir); err != nil {
				return nil, err
			}
		}
		t.levels = append(t.levels, at)
	}
	return t, nil
}

// tileReader lets tlog read hashes, which it checks against the root as it does.
type tileReader struct{ dir string }

func (tileReader) Height() int { return tileHeight }

func (r tileReader) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	all := make([][]byte, len(tiles))
	for i, want := range tiles {
		t := tile{level: want.L, index: uint64(want.N), width: want.W}
		data, err := t.read(r.dir)
		if err != nil {
			return nil, err
		}
		if len(data) < want.W*tlog.HashSize {
			return nil, fmt.Errorf("%s: shorter than %d hashes", t.path(), want.W)
		}
		all[i] = data[:want.W*tlog.HashSize]
	}
	return all, nil
}

func (tileReader) SaveTiles([]tlog.Tile, [][]byte) {}

// syncDirs makes what was put into directories durable.
func syncDirs(dirs map[string]bool) error {
	for dir := range dirs {
		d, err := os.Open(dir)
		if err != nil {
			return err
		}
		if err := errors.Join(d.Sync(), d.Close()); err != nil {
			return err
		}
	}
	return nil
}

// makeDirs makes the directories above a file below root, and notes in dirty whose content changed.
func makeDirs(root, path string, perm fs.FileMode, dirty map[string]bool) error {
	at := root
	for _, part := range strings.Split(filepath.Dir(path), "/") {
		err := os.Mkdir(filepath.Join(at, part), perm)
		if err == nil {
			dirty[at] = true
		} else if !errors.Is(err, fs.ErrExist) {
			return err
		}
		at = filepath.Join(at, part)
	}
	dirty[at] = true
	return nil
}

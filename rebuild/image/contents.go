package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sync/errgroup"

	"mayfly/internal/durable"
	"mayfly/internal/hint"
)

// files are what packages hold, and from which package each path is.
type files struct {
	tree tree
	from map[string]string
}

// contentsPath is where the store keeps what an image took from a package. Its name holds both hashes: that the one comes from the
// other is something that this store has seen itself.
func contentsPath(store string, p Package) string {
	return filepath.Join(store, p.SHA256+"."+p.Contents+".cpio")
}

// gather reads the locked packages' files: what the store keeps of them, or else all of the packages, whose names are returned.
// With fresh, packages are unpacked in any case.
func gather(ctx context.Context, packages []Package, store string, fresh bool) (all files, unpacked map[string]bool, err error) {
	trees, whole := make([]tree, len(packages)), make([]bool, len(packages))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, p := range packages {
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			if !fresh {
				t, err := readContents(store, p)
				if trees[i] = t; err == nil || !errors.Is(err, fs.ErrNotExist) {
					return err
				}
			}
			if err := checkStored(store, p); err != nil {
				return hint.New(fmt.Errorf("package %s %s: %w", p.Name, p.Version, err), "`fleetctl image fetch` brings what the store lacks")
			}
			whole[i] = true
			var err error
			trees[i], err = readDeb(storePath(store, p), wantedPath)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return files{}, nil, err
	}
	all, unpacked = files{tree{}, map[string]string{}}, map[string]bool{}
	for i, p := range packages {
		unpacked[p.Name] = whole[i]
		for name, n := range trees[i] {
			if old := all.tree[name]; old != nil && !(old.mode.IsDir() && n.mode.IsDir()) {
				return files{}, nil, fmt.Errorf("packages %s and %s both hold %s", min(all.from[name], p.Name), max(all.from[name], p.Name), name)
			}
			all.tree[name], all.from[name] = n, p.Name
		}
	}
	return all, unpacked, nil
}

// readContents reads what the store keeps of a package.
func readContents(store string, p Package) (tree, error) {
	file := contentsPath(store, p)
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxPayload))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != p.Contents {
		return nil, hint.New(fmt.Errorf("package %s: %s has been altered", p.Name, file), "remove the file; it is made again from the package")
	}
	t, err := readArchive(data)
	if err != nil {
		return nil, fmt.Errorf("package %s: %s: %w", p.Name, file, err)
	}
	return t, nil
}

// checkContents compares what is taken from packages that were unpacked with the lock file, and keeps it for the next build.
func checkContents(l LockFile, all files, taken map[string][]string, unpacked map[string]bool, store string) error {
	for _, p := range l.Packages {
		if !unpacked[p.Name] {
			continue
		}
		data, err := archive(all.tree, taken[p.Name])
		if err != nil {
			return err
		}
		if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != p.Contents {
			return hint.New(fmt.Errorf("package %s %s: what the image takes from it is not what the lock file says", p.Name, p.Version),
				"the lock file was made by another version of this program, or is wrong: make a new one: fleetctl image lock")
		}
		if err := keepContents(store, p, data); err != nil {
			return err
		}
	}
	return nil
}

// keepContents keeps what a package gives for the next build. A store that others keep is one, too.
func keepContents(store string, p Package, data []byte) error {
	if _, err := os.Lstat(contentsPath(store, p)); err == nil {
		return nil // looked at by those builds that use it
	}
	if err := durable.WriteFile(contentsPath(store, p), data, 0o644); err != nil && !errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("keeping what package %s gives: %w", p.Name, err)
	}
	return nil
}

// wantedPath leaves out early what no image takes, to save memory.
func wantedPath(p string) bool {
	for _, dir := range unwanted {
		if len(p) > len(dir) && p[:len(dir)] == dir {
			return false
		}
	}
	return true
}

var unwanted = []string{"/usr/share/doc/", "/usr/share/man/", "/usr/share/locale/", "/usr/share/lintian/", "/usr/share/bug/"}

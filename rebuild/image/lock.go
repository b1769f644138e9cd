package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"mayfly/internal/hint"
)

// Lock resolves the spec's packages through the host's apt, downloads what the store lacks, and returns the lock file. The
// store is a directory with a file SHA256.deb for each package. Nothing is installed, and it need not be root.
func Lock(ctx context.Context, spec Spec, store string) ([]byte, error) {
	return lockPackages(ctx, spec, store, nil)
}

// Update is Lock for who has a lock file already, and believes it: a package that it names is not unpacked again.
func Update(ctx context.Context, spec Spec, store string, old LockFile) ([]byte, error) {
	known := map[string]string{}
	if old.Spec == spec.digest && old.Profile == spec.profileName() {
		for _, p := range old.Packages {
			known[p.SHA256] = p.Contents
		}
	}
	return lockPackages(ctx, spec, store, known)
}

// lockPackages makes a lock file. known tells, by a package's SHA-256, what the image takes from it.
func lockPackages(ctx context.Context, spec Spec, store string, known map[string]string) ([]byte, error) {
	if err := os.MkdirAll(store, 0o755); err != nil {
		return nil, fmt.Errorf("locking the image: %w", err)
	}
	client, err := newApt(filepath.Join(store, "apt"))
	if err != nil {
		return nil, fmt.Errorf("locking the image: %w", err)
	}
	packages, err := resolveAndFetch(ctx, client, spec, store)
	if err != nil && ctx.Err() == nil {
		// The host's lists may be old or empty.
		updateErr := client.update(ctx)
		if packages, err = resolveAndFetch(ctx, client, spec, store); err != nil {
			err = errors.Join(err, updateErr)
		}
	}
	if err != nil {
		return nil, hint.New(fmt.Errorf("locking the image: %w", err), "check that apt has a Debian source that can be reached (apt-cache policy %s)", spec.Kernel)
	}
	lock := LockFile{Kind: Kind, Profile: spec.profileName(), Spec: spec.digest, Go: runtime.Version(), Packages: packages}
	for _, p := range packages {
		made, err := debTime(storePath(store, p))
		if err != nil {
			return nil, fmt.Errorf("locking the image: %w", err)
		}
		lock.Epoch = max(lock.Epoch, made.Unix())
	}
	if len(known) > 0 {
		with := lock
		with.Packages = slices.Clone(packages)
		for i, p := range packages {
			with.Packages[i].Contents = known[p.SHA256]
		}
		if err := with.addContents(ctx, spec, store, false); err == nil {
			return with.Marshal()
		}
		// What was taken then is not enough now.
	}
	if err := lock.addContents(ctx, spec, store, true); err != nil {
		return nil, fmt.Errorf("locking the image: %w", err)
	}
	return lock.Marshal()
}

// addContents notes what the image takes from each package. With fresh, all are unpacked for it: what the store keeps is believed only as
// far as a lock file names it. What is taken has to be enough to choose the same again: a build reads no
// more than that.
func (l *LockFile) addContents(ctx context.Context, spec Spec, store string, fresh bool) error {
	all, _, err := gather(ctx, l.Packages, store, fresh)
	if err != nil {
		return err
	}
	c, err := spec.choose(all)
	if err != nil {
		return err
	}
	if err := checkUsed(c.taken, l.Packages); err != nil {
		return err
	}
	kept := files{tree{}, all.from}
	for i, p := range l.Packages {
		data, err := archive(all.tree, c.taken[p.Name])
		if err != nil {
			return err
		}
		sum := sha256.Sum256(data)
		l.Packages[i].Contents = hex.EncodeToString(sum[:])
		if err := keepContents(store, l.Packages[i], data); err != nil {
			return err
		}
		part, err := readArchive(data)
		if err != nil {
			return fmt.Errorf("package %s: %w", p.Name, err)
		}
		maps.Copy(kept.tree, part)
	}
	again, err := spec.choose(kept)
	if err != nil {
		return fmt.Errorf("choosing a second time: %w", err)
	}
	if !again.same(c) {
		return errors.New("choosing a second time gave something else")
	}
	return nil
}

func resolveAndFetch(ctx context.Context, client *apt, spec Spec, store string) ([]Package, error) {
	packages, err := resolve(ctx, client.records, spec)
	if err != nil {
		return nil, err
	}
	return packages, fetch(ctx, client, packages, store)
}

// resolve follows dependencies from the spec's packages. A dependency that has an excluded alternative counts as met.
func resolve(ctx context.Context, records func(context.Context, []string) (map[string]record, error), spec Spec) ([]Package, error) {
	meta, err := records(ctx, []string{spec.Kernel})
	if err != nil {
		return nil, err
	}
	kernel, err := kernelOf(meta[spec.Kernel])
	if err != nil {
		return nil, fmt.Errorf("package %s: %w", spec.Kernel, err)
	}
	found := map[string]record{}
	var wanted []dependency
	for _, name := range append([]string{kernel}, spec.Packages...) {
		wanted = append(wanted, dependency{name})
	}
	if len(spec.Optional) > 0 {
		have, err := records(ctx, spec.Optional)
		if err != nil {
			return nil, err
		}
		for _, name := range slices.Sorted(maps.Keys(have)) {
			wanted = append(wanted, dependency{name})
		}
	}
	for range maxRounds {
		var names []string
		wanted = slices.DeleteFunc(wanted, func(d dependency) bool {
			return slices.ContainsFunc(d, func(name string) bool {
				_, have := found[name]
				return have || slices.Contains(spec.Exclude, name)
			})
		})
		for _, d := range wanted {
			names = append(names, d...)
		}
		if len(names) == 0 {
			packages := make([]Package, 0, len(found))
			for _, name := range slices.Sorted(maps.Keys(found)) {
				packages = append(packages, found[name].Package)
			}
			return packages, nil
		}
		slices.Sort(names)
		got, err := records(ctx, slices.Compact(names))
		if err != nil {
			return nil, err
		}
		var next []dependency
		for _, d := range wanted {
			i := slices.IndexFunc(d, func(name string) bool { _, ok := got[name]; return ok })
			if i < 0 {
				return nil, fmt.Errorf("package %s: apt has no record of it", strings.Join(d, " | "))
			}
			if _, have := found[d[i]]; !have {
				found[d[i]] = got[d[i]]
				next = append(next, got[d[i]].depends...)
			}
		}
		wanted = next
	}
	return nil, fmt.Errorf("dependencies are deeper than %d", maxRounds)
}

// kernelOf is the package that a kernel's meta package leads to.
func kernelOf(meta record) (string, error) {
	if meta.Name == "" {
		return "", errors.New("apt has no record of it")
	}
	for _, d := range meta.depends {
		if len(d) == 1 && strings.HasPrefix(d[0], "linux-image-") {
			return d[0], nil
		}
	}
	return "", errors.New("it depends on no linux-image package")
}

func storePath(store string, p Package) string { return filepath.Join(store, p.SHA256+".deb") }

// fetch downloads packages that the store lacks into a directory of its own, and takes from there what has the right hash.
func fetch(ctx context.Context, client *apt, packages []Package, store string) error {
	var names []string
	missing := map[string]Package{}
	for _, p := range packages {
		if err := checkStored(store, p); errors.Is(err, fs.ErrNotExist) {
			missing[p.SHA256] = p
			names = append(names, p.Name+"="+p.Version)
		} else if err != nil {
			return err
		}
	}
	if len(names) == 0 {
		return nil
	}
	dir, err := os.MkdirTemp(store, "download-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if _, err := client.run(ctx, dir, "apt-get", append([]string{"download"}, names...)...); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil {
		return err
	}
	for _, file := range files {
		sum, size, err := hashFile(file)
		if err != nil {
			return err
		}
		p, ok := missing[sum]
		if !ok || p.Size != size {
			continue
		}
		if err := os.Rename(file, storePath(store, p)); err != nil {
			return err
		}
		delete(missing, sum)
	}
	for _, p := range missing {
		return fmt.Errorf("package %s %s: apt downloaded none with SHA-256 %s", p.Name, p.Version, p.SHA256)
	}
	return nil
}

// checkStored hashes the store's copy of a package.
func checkStored(store string, p Package) error {
	file := storePath(store, p)
	sum, size, err := hashFile(file)
	if err != nil {
		return err
	}
	if sum != p.SHA256 || size != p.Size {
		return hint.New(fmt.Errorf("package %s: %s has been altered", p.Name, file), "remove the file, and run fleetctl image lock again")
	}
	return nil
}

func hashFile(file string) (sum string, size int64, err error) {
	f, err := os.Open(file)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	h := sha256.New()
	size, err = io.Copy(h, io.LimitReader(f, maxPackage+1))
	return hex.EncodeToString(h.Sum(nil)), size, err
}

package image

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	erofs "github.com/erofs/go-erofs"
)

// modeFS is a path's mode. The library's FileInfo.Mode mixes in the image's own bits; its Stat is right.
func modeFS(root fs.FS, path string) (fs.FileMode, error) {
	info, err := fs.Stat(root, path)
	if err != nil {
		return 0, err
	}
	return modeOf(info)
}

func modeOf(info fs.FileInfo) (fs.FileMode, error) {
	st, ok := info.Sys().(*erofs.Stat)
	if !ok {
		return 0, errors.New("no EROFS stat")
	}
	return st.Mode, nil
}

// What writeEROFS writes is what the tree says: types, modes, links, content, and one time for all.
func TestWriteEROFS(t *testing.T) {
	const epoch = 1_700_000_000
	in := tree{}
	in.mkdir("/", 0o755)
	in.mkdir("/tmp", 0o755)
	in["/tmp"].mode = fs.ModeDir | fs.ModeSticky | 0o777
	in.write("/etc/secret", 0o600, "s")
	in.write("/usr/bin/program", 0o755, strings.Repeat("x", 10_000))
	in.write("/usr/bin/empty", 0o644, "")
	in.symlink("usr/bin", "/bin")
	file := filepath.Join(t.TempDir(), "root.erofs")
	out, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if err := writeEROFS(out, in, epoch); err != nil {
		t.Fatal(err)
	}
	image, err := erofs.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	err = fs.WalkDir(image, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		seen++
		name := "/" + strings.TrimPrefix(path, ".")
		info, err := d.Info()
		if err != nil {
			return err
		}
		n := in[name]
		if n == nil {
			return errors.New(name + " is not in the tree")
		}
		if mode, err := modeOf(info); err != nil || mode != n.mode {
			t.Errorf("%s has mode %v, want %v (%v)", name, mode, n.mode, err)
		}
		if !info.ModTime().Equal(time.Unix(epoch, 0)) {
			t.Errorf("%s has time %v, want the epoch", name, info.ModTime().UTC())
		}
		if n.mode.IsRegular() {
			data, err := fs.ReadFile(image, path)
			if err != nil || string(data) != string(n.data) {
				t.Errorf("%s has %d bytes, want %d (%v)", name, len(data), len(n.data), err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen != len(in) {
		t.Errorf("%d entries, want %d", seen, len(in))
	}
}

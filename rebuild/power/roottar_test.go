package power

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"strings"
	"testing"

	"mayfly/rebuild/erofs"
)

// What a container gets is what the root says.
func TestWriteTar(t *testing.T) {
	var root, out bytes.Buffer
	err := erofs.Write(t.Context(), &root, []erofs.File{
		{Path: ".", Mode: fs.ModeDir | 0o755}, {Path: "bin", Mode: fs.ModeSymlink | 0o777, Data: []byte("usr")},
		{Path: "tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777}, {Path: "usr", Mode: fs.ModeDir | 0o755},
		{Path: "usr/large", Mode: 0o644, Data: []byte(strings.Repeat("x", 100_000))}, {Path: "usr/shadow", Mode: 0o600, Data: []byte("secret\n")},
	}, 1_700_000_000)
	if err != nil {
		t.Fatal(err)
	}
	if err := writeTar(&out, root.Bytes()); err != nil {
		t.Fatal(err)
	}
	type got struct {
		kind byte
		mode int64
		link string
		size int
	}
	all := map[string]got{}
	for r := tar.NewReader(&out); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, r)
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || h.ModTime.Unix() != 1_700_000_000 {
			t.Errorf("%s: %+v", h.Name, h)
		}
		all[h.Name] = got{h.Typeflag, h.Mode, h.Linkname, int(n)}
	}
	want := map[string]got{"bin": {tar.TypeSymlink, 0o777, "usr", 0}, "tmp/": {tar.TypeDir, 0o1777, "", 0}, "usr/": {tar.TypeDir, 0o755, "", 0},
		"usr/large": {tar.TypeReg, 0o644, "", 100_000}, "usr/shadow": {tar.TypeReg, 0o600, "", 7}}
	for name, w := range want {
		if all[name] != w {
			t.Errorf("%s: got %+v, want %+v", name, all[name], w)
		}
	}
	if len(all) != len(want) {
		t.Errorf("got %d entries, want %d", len(all), len(want))
	}
	if err := writeTar(io.Discard, make([]byte, 8192)); err == nil {
		t.Error("got a tar of what is no EROFS")
	}
}

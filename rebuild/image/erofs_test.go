package image

import (
	"bytes"
	"io/fs"
	"strings"
	"testing"
	"time"

	"mayfly/rebuild/erofs"
)

// readRoot reads a root into a tree.
func readRoot(t *testing.T, data []byte) (tree, time.Time) {
	t.Helper()
	image, err := erofs.Read(data)
	if err != nil {
		t.Fatal(err)
	}
	out := tree{}
	for _, f := range image.Files {
		n := &node{mode: f.Mode, data: f.Data}
		if f.Mode.Type() == fs.ModeSymlink {
			n.data, n.link = nil, string(f.Data)
		}
		out["/"+strings.TrimPrefix(f.Path, ".")] = n
	}
	return out, image.Epoch
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
	var out bytes.Buffer
	if err := writeEROFS(t.Context(), &out, in, epoch); err != nil {
		t.Fatal(err)
	}
	got, at := readRoot(t, out.Bytes())
	if !at.Equal(time.Unix(epoch, 0)) {
		t.Errorf("time %v, want the epoch", at.UTC())
	}
	for p, n := range in {
		if g := got[p]; g == nil || g.mode != n.mode || g.link != n.link || !bytes.Equal(g.data, n.data) {
			t.Errorf("%s is %+v, want %+v", p, g, n)
		}
	}
	if len(got) != len(in) {
		t.Errorf("%d entries, want %d", len(got), len(in))
	}
}

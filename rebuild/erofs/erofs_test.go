package erofs

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

const epoch = 1_700_000_000

// text is compressible, and nowhere the same.
func text(n int, seed uint64) []byte {
	rng := rand.New(rand.NewPCG(seed, 1))
	words := strings.Fields("boot seal root hash lock file node tree sign port key path mode size time link name disk page slot")
	var b bytes.Buffer
	for b.Len() < n {
		fmt.Fprintf(&b, "%s %d ", words[rng.IntN(len(words))], rng.IntN(1000))
	}
	return b.Bytes()[:n]
}

func noise(n int, seed uint64) []byte {
	rng := rand.New(rand.NewPCG(seed, 2))
	out := make([]byte, n)
	for i := range out {
		out[i] = byte(rng.Uint32())
	}
	return out
}

// sample has every kind of file and every size around a block's.
func sample() []File {
	files := []File{{Path: ".", Mode: fs.ModeDir | 0o755}, {Path: "big", Mode: fs.ModeDir | fs.ModeSticky | 0o777}}
	for i := range 300 { // more names than a block holds
		files = append(files, File{Path: fmt.Sprintf("big/%04d-%s", i, strings.Repeat("n", i%60)), Mode: 0o644, Data: text(i, uint64(i))})
	}
	files = append(files, File{Path: "deep", Mode: fs.ModeDir | 0o700}, File{Path: "deep/er", Mode: fs.ModeDir | 0o555}, File{Path: "deep/er/empty", Mode: 0o600})
	files = append(files, File{Path: "link", Mode: fs.ModeSymlink | 0o777, Data: []byte("deep/er")}, File{Path: "sizes", Mode: fs.ModeDir | 0o755})
	for _, n := range []int{1, 4063, 4064, 4065, 4095, 4096, 4097, 8000, 8192, 8193, 12_288, 100_000, 1_000_003} {
		files = append(files, File{Path: fmt.Sprintf("sizes/noise-%d", n), Mode: 0o644, Data: noise(n, uint64(n))})
		files = append(files, File{Path: fmt.Sprintf("sizes/text-%d", n), Mode: 0o755, Data: text(n, uint64(n))})
		files = append(files, File{Path: fmt.Sprintf("sizes/zeros-%d", n), Mode: 0o644, Data: make([]byte, n)})
		mixed := append(append(text(n, 7), noise(n, 8)...), text(n, 9)...)
		files = append(files, File{Path: fmt.Sprintf("sizes/mixed-%d", n), Mode: 0o644, Data: mixed})
	}
	return files
}

func image(t testing.TB, files []File) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(t.Context(), &b, files, epoch); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestWriteRead(t *testing.T) {
	files := sample()
	data := image(t, files)
	got, err := Read(data)
	if err != nil {
		t.Fatal(err)
	}
	if !got.Epoch.Equal(time.Unix(epoch, 0)) {
		t.Errorf("epoch %v", got.Epoch)
	}
	want := map[string]File{}
	for _, f := range files {
		want[f.Path] = f
	}
	for _, f := range got.Files {
		if w, ok := want[f.Path]; !ok || w.Mode != f.Mode || !bytes.Equal(w.Data, f.Data) {
			t.Errorf("%s: mode %v, %d bytes, want %v, %d", f.Path, f.Mode, len(f.Data), w.Mode, len(w.Data))
		}
		delete(want, f.Path)
	}
	if len(want) > 0 {
		t.Errorf("%d files are not in the image", len(want))
	}
	sum := 0
	for _, f := range files {
		sum += len(f.Data)
	}
	t.Logf("%d bytes in files, image of %d", sum, len(data))
	for _, procs := range []int{1, 2, 7} {
		old := runtime.GOMAXPROCS(procs)
		if !bytes.Equal(image(t, files), data) {
			t.Errorf("other bytes with %d processors", procs)
		}
		runtime.GOMAXPROCS(old)
	}
}

// The reference's checker reads what we write, and extracts the same files.
func TestPeerReads(t *testing.T) {
	fsck, err := exec.LookPath("fsck.erofs")
	if err != nil {
		t.Skip("SKIPPED: fsck.erofs is not installed (erofs-utils); the VM tests mount images with a kernel")
	}
	files := sample()
	dir := t.TempDir()
	file, out := filepath.Join(dir, "image"), filepath.Join(dir, "out")
	if err := os.WriteFile(file, image(t, files), 0o600); err != nil {
		t.Fatal(err)
	}
	if text, err := exec.CommandContext(t.Context(), fsck, "--extract="+out, "--preserve-perms", file).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	for _, f := range files {
		at := filepath.Join(out, f.Path)
		info, err := os.Lstat(at)
		if err != nil {
			t.Error(err)
			continue
		}
		if info.Mode() != f.Mode {
			t.Errorf("%s: mode %v, want %v", f.Path, info.Mode(), f.Mode)
		}
		if f.Mode.IsRegular() {
			if data, err := os.ReadFile(at); err != nil || !bytes.Equal(data, f.Data) {
				t.Errorf("%s: %d bytes, want %d (%v)", f.Path, len(data), len(f.Data), err)
			}
		}
	}
}

func TestWriteRefuses(t *testing.T) {
	root := File{Path: ".", Mode: fs.ModeDir | 0o755}
	for name, files := range map[string][]File{
		"nothing":          nil,
		"no root":          {{Path: "x"}},
		"no directory":     {root, {Path: "x/y"}},
		"a file as one":    {root, {Path: "x"}, {Path: "x/y"}},
		"twice":            {root, {Path: "x"}, {Path: "x"}},
		"absolute":         {root, {Path: "/x"}},
		"a device":         {root, {Path: "x", Mode: fs.ModeDevice}},
		"an empty link":    {root, {Path: "x", Mode: fs.ModeSymlink}},
		"too long a name":  {root, {Path: strings.Repeat("n", maxName+1)}},
		"the root's above": {root, {Path: "../x"}},
	} {
		if err := Write(t.Context(), new(bytes.Buffer), files, epoch); err == nil {
			t.Errorf("%s: was written", name)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	good := image(t, []File{{Path: ".", Mode: fs.ModeDir | 0o755}, {Path: "file", Mode: 0o644, Data: text(50_000, 1)}, {Path: "link", Mode: fs.ModeSymlink | 0o777, Data: []byte("x")}})
	root := int(good[superblockOffset+14]) * inodeSlot
	type change struct {
		at   int
		to   byte
		want string
	}
	tests := map[string]change{
		"magic":                  {superblockOffset, 0, "no superblock"},
		"feature":                {superblockOffset + 80, 3, "features"},
		"owner":                  {root + 24, 1, "not ours"},
		"extended inode":         {root, 1, "not ours"},
		"a directory as a file":  {root + 5, typeRegular >> 8, "mode"},
		"a directory's layout":   {root, 3 << 1, "layout 3"},
		"a directory compressed": {root, 1 << 1, "compressed, and no file"},
		"first name's place":     {root + inodeSize + 8, 255, "no count of entries"},
		"dot leads elsewhere":    {root + inodeSize, 1, "leads elsewhere"},
		"another file's type":    {root + inodeSize + 2*dirEntrySize + 10, 7, "its directory says type 7"},
		"epoch":                  {superblockOffset + 24 + 7, 1, "far away"},
		"blocks":                 {superblockOffset + 36, 1, "are said"},
		"number of files":        {superblockOffset + 16, 9, "and 9 are said"},
	}
	for name, tt := range tests {
		data := bytes.Clone(good)
		data[tt.at] = tt.to
		copy(data[superblockOffset+4:], checksumBytes(data))
		if _, err := Read(data); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
	flipped := bytes.Clone(good)
	flipped[superblockOffset+50] ^= 1
	for name, data := range map[string][]byte{"checksum": flipped, "truncated": good[:len(good)-blockSize], "half a block": good[:len(good)-1], "empty": nil} {
		if _, err := Read(data); err == nil {
			t.Errorf("%s: was read", name)
		}
	}
}

func checksumBytes(image []byte) []byte {
	sum := checksum(image)
	return []byte{byte(sum), byte(sum >> 8), byte(sum >> 16), byte(sum >> 24)}
}

func TestDecompressRefuses(t *testing.T) {
	for name, src := range map[string][]byte{
		"empty":              {},
		"literals missing":   {0x40, 'a'},
		"length missing":     {0xf0},
		"offset missing":     {0x10, 'a', 1},
		"offset 0":           {0x10, 'a', 0, 0},
		"before the start":   {0x10, 'a', 2, 0},
		"too much":           {0x1f, 'a', 1, 0, 255, 255, 0},
		"too little":         {0x10, 'a'},
		"a match at the end": {0x14, 'a', 1, 0},
	} {
		if err := decompress(make([]byte, 9), src); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// Whatever an image says, reading it ends, and what was read is what Write would hold.
func FuzzRead(f *testing.F) {
	f.Add(image(f, []File{{Path: ".", Mode: fs.ModeDir | 0o755}}))
	f.Add(image(f, []File{{Path: ".", Mode: fs.ModeDir | 0o755}, {Path: "a", Mode: 0o644, Data: text(9_000, 1)}, {Path: "d", Mode: fs.ModeDir | 0o700}, {Path: "d/l", Mode: fs.ModeSymlink | 0o777, Data: []byte("a")}}))
	f.Add(make([]byte, blockSize))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 16*blockSize {
			return
		}
		if len(data) >= blockSize { // else none would get past it
			copy(data[superblockOffset+4:], checksumBytes(data))
		}
		got, err := Read(data)
		if err != nil {
			return
		}
		again, err := Read(image(t, got.Files))
		if err != nil || len(again.Files) != len(got.Files) {
			t.Fatalf("what was read could not be written and read again: %v", err)
		}
		for i, f := range again.Files {
			if g := got.Files[i]; g.Path != f.Path || g.Mode != f.Mode || !bytes.Equal(g.Data, f.Data) {
				t.Errorf("%s changed", g.Path)
			}
		}
	})
}

// FuzzLZ4: what is compressed comes back, and fits its room.
func FuzzLZ4(f *testing.F) {
	f.Add(text(20_000, 1))
	f.Add(noise(5_000, 1))
	f.Add(make([]byte, 70_000))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) < matchMargin {
			return
		}
		finder := new(finder)
		finder.reset(data)
		for at := 0; at < len(data); {
			out, n := finder.compress(nil, blockSize, at)
			if n == 0 || len(out) > blockSize || out[0] == 0 {
				t.Fatalf("%d bytes of %d taken, %d given", n, len(data)-at, len(out))
			}
			back := make([]byte, n)
			if err := decompress(back, out); err != nil || !bytes.Equal(back, data[at:at+n]) {
				t.Fatalf("at %d: other bytes came back (%v)", at, err)
			}
			at += n
		}
	})
}

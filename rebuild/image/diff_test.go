package image

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"mayfly/rebuild/cpio"
	"mayfly/rebuild/release"
)

// layRelease writes a release directory without a statement.
func layRelease(t *testing.T, root tree, stub []cpio.File, kernel string, lock LockFile) string {
	t.Helper()
	dir := t.TempDir()
	data, err := lock.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	var rootFile, stubFile bytes.Buffer
	if err := writeEROFS(t.Context(), &rootFile, root, lock.Epoch); err != nil {
		t.Fatal(err)
	}
	if err := cpio.Write(&stubFile, stub); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{release.LockFile: data, release.RootFile: rootFile.Bytes(), release.StubFile: stubFile.Bytes(), release.KernelFile: []byte(kernel)} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func smallRoot() tree {
	root := tree{}
	root.mkdir("/", 0o755)
	root.write("/etc/hosts", 0o644, "a\nb\nc\nd\n")
	root.write("/usr/bin/program", 0o755, strings.Repeat("\x00x", 5000))
	root.symlink("usr/bin", "/bin")
	return root
}

// Each difference is said once, by the path of the file that differs.
func TestDiff(t *testing.T) {
	stub := []cpio.File{{Path: "init", Mode: 0o755, Data: []byte("stub")}}
	a := layRelease(t, smallRoot(), stub, "kernel", lockFile())
	if got, err := Diff(a, a); err != nil || len(got) != 0 {
		t.Fatalf("the same: %+v, %v", got, err)
	}
	root, lock := smallRoot(), lockFile()
	root.write("/etc/hosts", 0o600, "a\nB\nc\nd\ne\n")
	root["/usr/bin/program"].data[7] = 'y'
	root.symlink("sbin", "/bin")
	root.write("/etc/new", 0o644, "n")
	delete(root, "/usr")
	root.mkdir("/usr", 0o700)
	lock.Packages[0].Version = "2.36-9+deb12u15"
	b := layRelease(t, root, append(stub, cpio.File{Path: "dev", Mode: fs.ModeDir | 0o755}), "kernel", lock)
	got, err := Diff(a, b)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, d := range got {
		lines = append(lines, strings.Join(append([]string{d.Part, d.Path, d.What, d.Old, d.New}, d.Details...), "|"))
	}
	text := strings.Join(lines, "\n")
	for _, want := range []string{
		"image.lock|libc6|changed|2.36-9+deb12u14|2.36-9+deb12u15",
		"stub.cpio|/dev|added||drwxr-xr-x",
		"root.erofs|/bin|changed|link to usr/bin|link to sbin",
		"root.erofs|/etc/new|added||-rw-r--r--, 1 bytes, ",
		"|- b|+ B|+ e",
		"root.erofs|/usr|changed|drwxr-xr-x|drwx------",
		"root.erofs|/usr/bin/program|changed|-rwxr-xr-x, 10000 bytes, ",
		"differs from byte 7 on, in 1 of 10000 bytes",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not said:\n%s", want, text)
		}
	}
	if strings.Contains(text, "vmlinuz") || len(got) != 10 {
		t.Errorf("%d differences:\n%s", len(got), text)
	}
	if _, err := Diff(t.TempDir(), t.TempDir()); err == nil {
		t.Error("two empty directories were compared")
	}
}

// What cannot be taken apart is compared all the same; a part that one side lacks is said.
func TestDiffBroken(t *testing.T) {
	stub := []cpio.File{{Path: "init", Mode: 0o755, Data: []byte("stub")}}
	a, b := layRelease(t, smallRoot(), stub, "kernel", lockFile()), layRelease(t, smallRoot(), stub, "kernel", lockFile())
	if err := os.WriteFile(filepath.Join(b, release.RootFile), []byte("no image"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(b, release.StubFile)); err != nil {
		t.Fatal(err)
	}
	got, err := Diff(a, b)
	if err != nil || len(got) != 2 || got[0].Part != release.StubFile || got[0].What != Removed || got[1].Part != release.RootFile ||
		!strings.Contains(got[1].Details[0], "cannot be taken apart") {
		t.Errorf("%+v, %v", got, err)
	}
}

// A Go program is explained by what it was built from.
func TestExplainGo(t *testing.T) {
	dir := t.TempDir()
	goEnvCache(t)
	writeFiles(t, dir, map[string]string{"go.mod": "module example.org/p\n\ngo 1.26\n", "main.go": goodMain})
	build := func(name string, flags ...string) []byte {
		out := filepath.Join(t.TempDir(), name)
		cmd := exec.Command("go", append(append([]string{"build", "-trimpath", "-buildvcs=false", "-o", out}, flags...), ".")...)
		cmd.Dir = dir
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		data, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	plain, tagged := build("a"), build("b", "-tags=other")
	if text := strings.Join(explain(plain, tagged), "\n"); !strings.Contains(text, "setting -tags: + other") {
		t.Errorf("tags: %s", text)
	}
	writeFiles(t, dir, map[string]string{"main.go": evilMain})
	if text := strings.Join(explain(plain, build("c")), "\n"); !strings.Contains(text, "other sources of ours") || !strings.Contains(text, "section .rodata") {
		t.Errorf("sources: %s", text)
	}
}

// Two texts' differences are enough to make one from the other; nothing that is given makes it fail.
func FuzzExplain(f *testing.F) {
	f.Add([]byte("a\nb\nc\n"), []byte("a\nc\nd\n"))
	f.Add([]byte("\x7fELF\x02\x01\x01"), []byte("\x7fELF\x02\x01\x02"))
	f.Add([]byte("MZ"), []byte(""))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		if bytes.Equal(a, b) {
			return
		}
		if out := explain(a, b); len(out) == 0 || len(out) > maxDetails+1 {
			t.Errorf("%d details", len(out))
		}
		if _, err := sections(a); err == nil && len(a) < 64 {
			t.Error("a PE file without a header")
		}
	})
}

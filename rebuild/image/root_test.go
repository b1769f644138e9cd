package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// deb makes a package with one data member.
func deb(t *testing.T, suffix string, entries ...tar.Header) string {
	t.Helper()
	var data bytes.Buffer
	w := tar.NewWriter(&data)
	for _, h := range entries {
		content := []byte(strings.Repeat("x", int(h.Size)))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	body := compress(t, suffix, data.Bytes())
	var out bytes.Buffer
	out.WriteString(arMagic)
	for _, m := range []struct {
		name string
		data []byte
	}{{"debian-binary", []byte("2.0\n")}, {"data.tar" + suffix, body}} {
		fmt.Fprintf(&out, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", m.name, 1_700_000_000, 0, 0, "100644", len(m.data))
		out.Write(m.data)
		if len(m.data)%2 == 1 {
			out.WriteByte('\n')
		}
	}
	file := filepath.Join(t.TempDir(), "package.deb")
	if err := os.WriteFile(file, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func compress(t *testing.T, suffix string, data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	var w interface {
		Write([]byte) (int, error)
		Close() error
	}
	var err error
	switch suffix {
	case ".xz":
		w, err = xz.NewWriter(&out)
	case ".zst":
		w, err = zstd.NewWriter(&out)
	case ".gz":
		w = gzip.NewWriter(&out)
	default:
		return data
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func everything(string) bool { return true }

func TestReadDeb(t *testing.T) {
	for _, suffix := range []string{"", ".gz", ".xz", ".zst"} {
		file := deb(t, suffix,
			tar.Header{Name: "./bin/", Typeflag: tar.TypeDir, Mode: 0o755},
			tar.Header{Name: "./bin/program", Typeflag: tar.TypeReg, Mode: 0o4755, Size: 3},
			tar.Header{Name: "./usr/bin/same", Typeflag: tar.TypeLink, Linkname: "./bin/program"},
			tar.Header{Name: "./lib/l.so", Typeflag: tar.TypeSymlink, Linkname: "l.so.1"})
		got, err := readDeb(file, everything)
		if err != nil {
			t.Errorf("data.tar%s: %v", suffix, err)
			continue
		}
		if n := got["/usr/bin/program"]; n == nil || n.mode != 0o755 || string(n.data) != "xxx" {
			t.Errorf("data.tar%s: program is %+v", suffix, n)
		}
		if n := got["/usr/bin/same"]; n == nil || string(n.data) != "xxx" {
			t.Errorf("data.tar%s: hard link is %+v", suffix, n)
		}
		if n := got["/usr/lib/l.so"]; n == nil || n.link != "l.so.1" {
			t.Errorf("data.tar%s: symbolic link is %+v", suffix, n)
		}
	}
	made, err := debTime(deb(t, ""))
	if err != nil || !made.Equal(time.Unix(1_700_000_000, 0)) {
		t.Errorf("debTime: %v, %v", made, err)
	}
}

func TestReadDebRefuses(t *testing.T) {
	tests := map[string]string{
		"path that leads out":  deb(t, "", tar.Header{Name: "./usr/../../etc/x", Typeflag: tar.TypeReg}),
		"device":               deb(t, "", tar.Header{Name: "./dev/sda", Typeflag: tar.TypeBlock}),
		"hard link to nothing": deb(t, "", tar.Header{Name: "./x", Typeflag: tar.TypeLink, Linkname: "./y"}),
		"nothing":              deb(t, ""),
		"unknown compression":  deb(t, ".lz4", tar.Header{Name: "./x", Typeflag: tar.TypeReg}),
	}
	whole, err := os.ReadFile(deb(t, ".xz", tar.Header{Name: "./x", Typeflag: tar.TypeReg, Size: 10_000}))
	if err != nil {
		t.Fatal(err)
	}
	short := filepath.Join(t.TempDir(), "short.deb")
	if err := os.WriteFile(short, whole[:len(whole)-40], 0o600); err != nil {
		t.Fatal(err)
	}
	tests["truncated"] = short
	for name, file := range tests {
		if got, err := readDeb(file, everything); err == nil {
			t.Errorf("%s: accepted, %d entries", name, len(got))
		}
	}
}

// A root in which a library is missing is refused with the names of both files.
func TestLibraryMissing(t *testing.T) {
	program := dynamicProgram(t)
	packages := tree{}
	packages.put("/usr/bin/program", &node{mode: 0o755, data: program})
	interpreter, libraries, err := elfNeeds(program)
	if err != nil || interpreter == "" || len(libraries) == 0 {
		t.Fatalf("elfNeeds: %q, %q, %v", interpreter, libraries, err)
	}
	spec := Spec{Root: Root{Programs: []string{"/usr/bin/program"}}}
	_, err = layRoot(spec, packages, nil)
	if err == nil || !strings.Contains(err.Error(), "/usr/bin/program needs "+interpreter) {
		t.Errorf("missing interpreter: %v", err)
	}
	packages.put(mergeUsr(interpreter), &node{mode: 0o755, data: staticELF(t)})
	_, err = layRoot(spec, packages, nil)
	if err == nil || !strings.Contains(err.Error(), "/usr/bin/program needs "+libraries[0]) {
		t.Errorf("missing library: %v", err)
	}
	for _, l := range libraries {
		packages.put(libraryDirs[0]+"/"+l+".1", &node{mode: 0o644, data: staticELF(t)})
		packages.symlink(l+".1", libraryDirs[0]+"/"+l)
	}
	root, err := layRoot(spec, packages, nil)
	if err != nil {
		t.Fatal(err)
	}
	if n := root[libraryDirs[0]+"/"+libraries[0]+".1"]; n == nil || !n.mode.IsRegular() {
		t.Error("a link to a library was taken without the library")
	}
	if n := root["/bin"]; n == nil || n.mode.Type() != fs.ModeSymlink || n.link != "usr/bin" {
		t.Errorf("/bin is %+v, want a link to usr/bin", n)
	}
}

// dynamicProgram is a program of this host that needs libraries.
func dynamicProgram(t *testing.T) []byte {
	t.Helper()
	for _, file := range []string{"/usr/bin/ls", "/usr/bin/cat", "/usr/bin/env"} {
		data, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		if interpreter, libraries, err := elfNeeds(data); err == nil && interpreter != "" && len(libraries) > 0 {
			return data
		}
	}
	t.Skip("SKIPPED: this host has no dynamic x86-64 program to try with")
	return nil
}

// staticELF is this test's own program, or failing that any program without needs.
func staticELF(t *testing.T) []byte {
	t.Helper()
	header := make([]byte, 64)
	copy(header, "\x7fELF\x02\x01\x01")
	header[16], header[18], header[20] = 3, 62, 1 // a shared object for x86-64
	header[52], header[54], header[58] = 64, 56, 64
	if _, libraries, err := elfNeeds(header); err != nil || len(libraries) > 0 {
		t.Fatalf("the test's ELF header: %v %v", libraries, err)
	}
	return header
}

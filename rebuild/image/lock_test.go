package image

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mayfly/internal/hint"
	"mayfly/policies"
)

func lockFile() LockFile {
	hash := strings.Repeat("ab", 32)
	return LockFile{Kind: Kind, Profile: DefaultProfile, Spec: hash, Go: "go1.26.8", Epoch: 1_794_824_260, Packages: []Package{
		{Name: "libc6", Version: "2.36-9+deb12u14", Arch: "amd64", Source: "glibc", File: "pool/main/g/glibc/libc6_2.36-9+deb12u14_amd64.deb", SHA256: hash, Size: 10, Contents: hash},
		{Name: "unbound", Version: "1:1.17.1-2", Arch: "all", Source: "unbound", File: "pool/updates/main/u/unbound/unbound_1.17.1-2_all.deb", SHA256: hash, Size: 10, Contents: hash},
	}}
}

func TestParseLock(t *testing.T) {
	data, err := lockFile().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseLock(data); err != nil {
		t.Errorf("a good lock file: %v", err)
	}
	if _, err := ParseLock(append(data, ' ')); err == nil {
		t.Error("trailing data was accepted")
	}
	if _, err := ParseLock(bytes.Replace(data, []byte(`"spec"`), []byte(`"Spec"`), 1)); err == nil {
		t.Error("another case was accepted")
	}
	tests := map[string]func(*LockFile){
		"kind":         func(l *LockFile) { l.Kind = "x" },
		"spec":         func(l *LockFile) { l.Spec = "x" },
		"go":           func(l *LockFile) { l.Go = "devel go1.27" },
		"epoch":        func(l *LockFile) { l.Epoch = 1 },
		"no packages":  func(l *LockFile) { l.Packages = nil },
		"out of order": func(l *LockFile) { l.Packages[0], l.Packages[1] = l.Packages[1], l.Packages[0] },
		"twice":        func(l *LockFile) { l.Packages[1] = l.Packages[0] },
		"name":         func(l *LockFile) { l.Packages[0].Name = "../x" },
		"version":      func(l *LockFile) { l.Packages[0].Version = "1 2" },
		"arch":         func(l *LockFile) { l.Packages[0].Arch = "arm64" },
		"hash":         func(l *LockFile) { l.Packages[0].SHA256 = "../../etc/passwd" },
		"profile":      func(l *LockFile) { l.Profile = "../x" },
		"source":       func(l *LockFile) { l.Packages[0].Source = "" },
		"file":         func(l *LockFile) { l.Packages[0].File = "pool/../../x.deb" },
		"other file":   func(l *LockFile) { l.Packages[0].File = "http://x/y.deb" },
		"contents":     func(l *LockFile) { l.Packages[0].Contents = "" },
		"size":         func(l *LockFile) { l.Packages[0].Size = maxPackage + 1 },
	}
	for name, f := range tests {
		l := lockFile()
		f(&l)
		if _, err := l.Marshal(); err == nil {
			t.Errorf("%s: Marshal gave no error", name)
		}
	}
}

func FuzzParseLock(f *testing.F) {
	data, err := lockFile().Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add(bytes.Replace(data, []byte("10"), []byte("1e1"), 1))
	f.Add([]byte(`{"kind":"mayfly-image-lock/2"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := ParseLock(data)
		if err != nil {
			return
		}
		if again, err := l.Marshal(); err != nil || !bytes.Equal(again, data) {
			t.Errorf("ParseLock accepted what Marshal does not give back: %v", err)
		}
	})
}

func TestParseSpec(t *testing.T) {
	if got := Default().Digest(); !isHash(got) {
		t.Errorf("digest %q", got)
	}
	tests := map[string]struct{ text, want string }{
		"unknown key":    {"kernel = \"linux-image-x\"\nkernels = 1\n", "image.toml:2: unknown key \"kernels\""},
		"wrong type":     {"kernel = 1\n", "image.toml:1: "},
		"no kernel":      {"", "bad package name"},
		"twice":          {"kernel = \"linux-image-x\"\npackages = [\"aa\", \"aa\"]\n", "image.toml:2: \"aa\" is listed twice"},
		"option as name": {"kernel = \"linux-image-x\"\npackages = [\"-o\"]\n", "image.toml:2: bad entry \"-o\""},
		"unmerged path":  {"kernel = \"linux-image-x\"\n[root]\nprograms = [\"/sbin/sshd\"]\n", "image.toml:3: bad entry"},
		"path of a stub": {"kernel = \"linux-image-x\"\nefi_stub = \"x.stub\"\n", "image.toml:2: bad path"},
		"path up":        {"kernel = \"linux-image-x\"\n[root]\nfiles = [\"/usr/../etc\"]\n", "image.toml:3: bad entry"},
		"setuid":         {"kernel = \"linux-image-x\"\n[root]\ndirectories = [{ path = \"/x\", mode = 0o4755 }]\n", "sticky bit only"},
		"same id":        {"kernel = \"linux-image-x\"\n[[root.account]]\nname = \"a\"\nid = 1\nhome = \"/a\"\n[[root.account]]\nname = \"b\"\nid = 1\nhome = \"/b\"\n", "listed twice"},
	}
	for name, tt := range tests {
		_, err := ParseSpec("image.toml", []byte(tt.text))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want one with %q", name, err, tt.want)
		}
		if hint.Of(err) == "" {
			t.Errorf("%s: no hint for %v", name, err)
		}
	}
}

const aptRecords = `Package: meta
Version: 1
Architecture: amd64
Filename: pool/main/x.deb
Depends: linux-image-1 (= 1)
Size: 5
SHA256: abababababababababababababababababababababababababababababababab

Package: linux-image-1
Version: 1
Architecture: amd64
Filename: pool/main/x.deb
Depends: kmod, initramfs-tools (>= 0.1) | linux-initramfs-tool
Size: 5
SHA256: abababababababababababababababababababababababababababababababab

Package: server
Version: 2:1
Architecture: amd64
Filename: pool/main/x.deb
Pre-Depends: scripts:any
Depends: lib-a (>= 1) | lib-virtual, lib-b
Description: text
 Package: hidden in a continuation
Size: 5
SHA256: abababababababababababababababababababababababababababababababab

Package: lib-b
Version: 1
Architecture: all
Filename: pool/main/x.deb
Depends: server
Size: 5
SHA256: abababababababababababababababababababababababababababababababab

Package: lib-virtual
Version: 1
Architecture: amd64
Filename: pool/main/x.deb
Size: 5
SHA256: abababababababababababababababababababababababababababababababab
`

// No engineer may have an account's name that a server has for itself.
func TestAccountsAreReserved(t *testing.T) {
	for _, a := range Default().Root.Accounts {
		if policies.AccountName(a.Name) {
			t.Errorf("a policy could name an engineer %q, which is an account of the image", a.Name)
		}
	}
}

func TestResolve(t *testing.T) {
	all, err := parseRecords(strings.NewReader(aptRecords))
	if err != nil {
		t.Fatal(err)
	}
	ask := func(_ context.Context, names []string) (map[string]record, error) {
		out := map[string]record{}
		for _, n := range names {
			if r, ok := all[n]; ok {
				out[n] = r
			}
		}
		return out, nil
	}
	spec := Spec{Kernel: "meta", Packages: []string{"server"}, Exclude: []string{"kmod", "linux-initramfs-tool", "scripts"}}
	got, err := resolve(t.Context(), ask, spec)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range got {
		names = append(names, p.Name)
	}
	if got, want := strings.Join(names, " "), "lib-b lib-virtual linux-image-1 server"; got != want {
		t.Errorf("resolved %q, want %q", got, want)
	}
	spec.Exclude = spec.Exclude[:2]
	if _, err := resolve(t.Context(), ask, spec); err == nil || !strings.Contains(err.Error(), "package scripts: apt has no record") {
		t.Errorf("a missing dependency: %v", err)
	}
	if _, err := parseRecords(strings.NewReader("Package: x\nVersion: 1\n")); err == nil {
		t.Error("a record without a hash was accepted")
	}
}

func TestStoreIsChecked(t *testing.T) {
	store := t.TempDir()
	p := Package{Name: "x", SHA256: strings.Repeat("ab", 32), Size: 3}
	if err := checkStored(store, p); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing package: %v", err)
	}
	if err := os.WriteFile(filepath.Join(store, p.SHA256+".deb"), []byte("abc"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := checkStored(store, p); err == nil || hint.Of(err) == "" {
		t.Errorf("an altered package: %v, want an error with a hint", err)
	}
}

package image

import (
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
)

// A profile has its own kernel and what comes on top; what is outside of profiles is "cloud".
func TestProfile(t *testing.T) {
	cloud, err := Default().Profile(DefaultProfile)
	if err != nil {
		t.Fatal(err)
	}
	metal, err := Default().Profile("metal")
	if err != nil {
		t.Fatal(err)
	}
	if cloud.Kernel == metal.Kernel || len(metal.Modules.Stub) <= len(cloud.Modules.Stub) || metal.digest != cloud.digest {
		t.Errorf("cloud %q %q, metal %q %q", cloud.Kernel, cloud.Modules.Stub, metal.Kernel, metal.Modules.Stub)
	}
	for _, m := range append([]string{"bonding", "8021q"}, cloud.Modules.Stub...) {
		if !slices.Contains(metal.Modules.Stub, m) {
			t.Errorf("metal lacks the module %s", m)
		}
	}
	if _, err := Default().Profile("pocket"); err == nil || !strings.Contains(err.Error(), `no profile "pocket"`) {
		t.Errorf("an unknown profile: %v", err)
	}
	for text, want := range map[string]string{
		"[profile.cloud]\n":                         "image.toml:2: bad profile",
		"[profile.met-al]\n":                        "bad profile",
		"[profile.metal]\nkernel = \"-x\"\n":        "bad package name",
		"[profile.metal]\nfiles = []\n":             "unknown key",
		"[profile.metal]\noptional = [\"x\"]\n":     "bad entry",
		"[profile.metal.modules]\nstub = [\"-\"]\n": "bad entry",
	} {
		if _, err := ParseSpec("image.toml", []byte("kernel = \"linux-image-x\"\n"+text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// onePackage is a store with what an image takes from one package, and the package's entry.
func onePackage(t *testing.T, packages tree, taken ...string) (store string, p Package) {
	t.Helper()
	data, err := archive(packages, taken)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	store, p = t.TempDir(), Package{Name: "x", SHA256: strings.Repeat("ab", 32), Contents: hex.EncodeToString(sum[:])}
	if err := keepContents(store, p, data); err != nil {
		t.Fatal(err)
	}
	return store, p
}

// What the store keeps of a package is what was taken, is believed by its hash alone, and is not asked when a build has to be fresh.
func TestContents(t *testing.T) {
	packages := tree{}
	packages.write("/usr/bin/program", 0o755, "hello")
	packages.write("/usr/bin/other", 0o755, "not taken")
	packages.symlink("program", "/usr/bin/link")
	store, p := onePackage(t, packages, "/usr/bin/link", "/usr/bin/program")
	all, unpacked, err := gather(t.Context(), []Package{p}, store, false)
	if err != nil || unpacked["x"] {
		t.Fatalf("%v, unpacked %v", err, unpacked)
	}
	if got := all.tree.paths(); !slices.Equal(got, []string{"/usr/bin/link", "/usr/bin/program"}) {
		t.Errorf("read %q", got)
	}
	if n := all.tree["/usr/bin/link"]; n.link != "program" || n.mode.Type() != fs.ModeSymlink {
		t.Errorf("the link is %+v", n)
	}
	if _, _, err := gather(t.Context(), []Package{p}, store, true); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("fresh, without the package: %v", err)
	}
	l := LockFile{Packages: []Package{p}}
	taken := map[string][]string{"x": {"/usr/bin/program"}}
	if err := checkContents(l, all, taken, map[string]bool{"x": true}, store); err == nil || !strings.Contains(err.Error(), "is not what the lock file says") {
		t.Errorf("less is taken than the lock file says: %v", err)
	}
	if err := os.WriteFile(contentsPath(store, p), []byte("altered"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := gather(t.Context(), []Package{p}, store, false); err == nil || !strings.Contains(err.Error(), "has been altered") {
		t.Errorf("an altered file: %v", err)
	}
}

// Two packages that hold the same file are refused, whichever of them is read from the store's archives.
func TestGatherTwice(t *testing.T) {
	packages := tree{}
	packages.write("/usr/bin/program", 0o755, "hello")
	store, p := onePackage(t, packages, "/usr/bin/program")
	other := p
	other.Name = "y"
	if _, _, err := gather(t.Context(), []Package{p, other}, store, false); err == nil || !strings.Contains(err.Error(), "packages x and y both hold /usr/bin/program") {
		t.Errorf("%v", err)
	}
}

// Firmware is laid where the kernel looks for it, with links; what no package holds is told; a path out of the tree is refused.
func TestFirmware(t *testing.T) {
	packages, dst := tree{}, tree{}
	module := moduleFile(t, "firmware=card/a.bin", "firmware=card/b.bin", "firmware=none.bin")
	packages.put("/usr/lib/modules/1/m.ko", &node{mode: 0o644, data: module})
	packages.write("/usr/lib/firmware/card/a-1.bin", 0o644, "fw")
	packages.symlink("a-1.bin", "/usr/lib/firmware/card/a.bin")
	packages.write("/usr/lib/firmware/card/b.bin", 0o644, "fw")
	lacking, err := copyFirmware(dst, packages, []string{"/usr/lib/modules/1/m.ko"})
	if err != nil || !slices.Equal(lacking, []string{"m: none.bin"}) {
		t.Fatalf("lacking %q, %v", lacking, err)
	}
	for _, at := range []string{"card/a.bin", "card/a-1.bin", "card/b.bin"} {
		if dst[firmwareRoot+at] == nil {
			t.Errorf("%s was not laid", at)
		}
	}
	stub, _, err := layStub(packages, []string{"/usr/lib/modules/1/m.ko"})
	if err != nil || stub["/lib"] == nil || stub["/lib"].link != "usr/lib" {
		t.Errorf("the stub's /lib is %+v, %v", stub["/lib"], err)
	}
	packages.put("/usr/lib/modules/1/m.ko", &node{mode: 0o644, data: moduleFile(t, "firmware=../../../etc/shadow")})
	if _, err := copyFirmware(dst, packages, []string{"/usr/lib/modules/1/m.ko"}); err == nil {
		t.Error("a path out of the firmware's directory was accepted")
	}
}

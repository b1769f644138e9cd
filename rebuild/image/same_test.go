package image

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mayfly/rebuild/release"
)

// built are the files of an image that have to be the same everywhere.
var built = []string{release.KernelFile, release.StubFile, release.RootFile, release.LockFile, release.SBOMFile}

// sameImages compares two builds, and says by Diff what differs.
func sameImages(t *testing.T, a, b string) {
	t.Helper()
	for _, name := range built {
		x, err := os.ReadFile(filepath.Join(a, name))
		if err != nil {
			t.Fatal(err)
		}
		y, err := os.ReadFile(filepath.Join(b, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(x, y) {
			differences, err := Diff(a, b)
			t.Fatalf("%s differs: %+v (%v)", name, differences, err)
		}
	}
}

// buildRun is one build, in a process of its own.
type buildRun struct {
	builder, lock, store, out, module string
	env                               []string
	around                            []string // the command that runs it
}

func (r buildRun) run(t *testing.T) Result {
	t.Helper()
	args := append(slices.Clone(r.around), r.builder, r.lock, r.store, r.out, "-", r.module)
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Env = r.env
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	began := time.Now()
	text, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", args, err, stderr.Bytes())
	}
	var result Result
	if err := json.Unmarshal(text, &result); err != nil {
		t.Fatal(err)
	}
	t.Logf("built in %.1f s: vmlinuz %d, stub.cpio %d, root.erofs %d bytes", time.Since(began).Seconds(), result.Kernel.Size, result.Stub.Size, result.Root.Size)
	return result
}

// The same lock file and sources give the same bytes: from another directory, under another umask, time zone, locale, home, temporary directory
// and number of processors; and by another user on another distribution (Debian 13 in place of 12), who compiles everything anew and unpacks
// every package. TestSameTime is about the time.
func TestSameBytes(t *testing.T) {
	needApt(t)
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: only root can become another user, and make another distribution's root")
	}
	dir, err := os.MkdirTemp("", "mayfly-same-") // t.TempDir's parents are closed to others
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	builder, store, lock := filepath.Join(dir, "buildimage"), packageStore(t), filepath.Join(dir, "image.lock")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", builder, "./testdata/buildimage")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if text, err := exec.CommandContext(t.Context(), builder, "lock", lock, store, "-", DefaultProfile).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	module, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(dir, "another", "place")
	copyModule(t, module, copied)
	caches := []string{"GOCACHE=" + goEnv(t, "GOCACHE"), "GOMODCACHE=" + goEnv(t, "GOMODCACHE")}
	plain := buildRun{builder: builder, lock: lock, store: store, out: filepath.Join(dir, "plain"), module: module, env: append(os.Environ(), caches...)}
	plain.run(t)
	checkRoot(t, filepath.Join(plain.out, release.RootFile))

	t.Run("varied", func(t *testing.T) {
		r := plain
		r.out, r.module = filepath.Join(dir, "varied"), copied
		r.around = []string{"taskset", "-c", "0", "sh", "-c", `umask 077 && exec "$0" "$@"`}
		r.env = append(slices.Clone(plain.env), "TZ=Asia/Kathmandu", "LC_ALL=C.UTF-8", "GOMAXPROCS=3", "HOME="+t.TempDir(), "TMPDIR="+t.TempDir(), "GOFLAGS=-v")
		r.run(t)
		sameImages(t, plain.out, r.out)
	})

	t.Run("Debian 13", func(t *testing.T) {
		root := filepath.Join(dir, "trixie")
		makeTrixie(t, root)
		// In some places debootstrap lays a link to itself here.
		if err := os.RemoveAll(filepath.Join(root, "proc")); err != nil {
			t.Fatal(err)
		}
		// In a mount namespace of its own, so that nothing stays; as nobody, with nothing in the environment but what is said here.
		binds := [][2]string{{copied, "/src"}, {store, "/store"}, {builder, "/buildimage"}, {lock, "/image.lock"}, {goEnv(t, "GOROOT"), "/go"}, {goEnv(t, "GOMODCACHE"), "/modules"}, {"/dev", "/dev"}, {"/proc", "/proc"}}
		script := "set -e\nmount --make-rprivate /\n"
		for _, b := range binds {
			at := filepath.Join(root, b[1])
			info, err := os.Stat(b[0])
			if err != nil {
				t.Fatal(err)
			}
			if info.IsDir() {
				err = os.MkdirAll(at, 0o755)
			} else {
				err = os.WriteFile(at, nil, 0o755)
			}
			if err != nil {
				t.Fatal(err)
			}
			script += fmt.Sprintf("mount --bind '%s' '%s'\n", b[0], at)
		}
		for _, name := range []string{"out", "scratch"} {
			if err := os.MkdirAll(filepath.Join(root, name), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Chown(filepath.Join(root, name), 65534, 65534); err != nil {
				t.Fatal(err)
			}
		}
		script += "exec chroot --userspec=65534:65534 '" + root + `' /bin/sh -c 'umask 027 && grep -q trixie /etc/os-release && exec "$0" "$@"' "$@"`
		r := buildRun{builder: "/buildimage", lock: "/image.lock", store: "/store", out: "/out/image", module: "/src",
			around: []string{"unshare", "-m", "sh", "-c", script, "sh"},
			env: []string{"PATH=/go/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME=/scratch", "TMPDIR=/scratch", "GOCACHE=/scratch/cache", "GOMODCACHE=/modules", "TZ=America/St_Johns",
				"LC_ALL=tr_TR.UTF-8", "BUILDIMAGE_FRESH=1"}}
		r.run(t)
		sameImages(t, plain.out, filepath.Join(root, "out", "image"))
	})
}

// makeTrixie unpacks a minimal Debian 13, from the mirror that this machine's own apt uses.
func makeTrixie(t *testing.T, root string) {
	t.Helper()
	text, err := exec.CommandContext(t.Context(), "apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages").Output()
	if err != nil {
		t.Fatal(err)
	}
	tried := ""
	for _, mirror := range slices.Compact(slices.Sorted(strings.FieldsSeq(string(text)))) {
		u, err := url.Parse(mirror)
		if err != nil || strings.Trim(u.Path, "/") == "" || !strings.HasSuffix(strings.TrimSuffix(u.Path, "/"), "/debian") {
			continue
		}
		// The first half only: nothing that a package brings is run but its shell.
		cmd := exec.CommandContext(t.Context(), "debootstrap", "--foreign", "--variant=minbase", "trixie", root, mirror)
		out, err := cmd.CombinedOutput()
		if err == nil {
			return
		}
		tried += fmt.Sprintf("%v\n%s\n", err, out[max(0, len(out)-2000):])
		if err := os.RemoveAll(root); err != nil {
			t.Fatal(err)
		}
	}
	t.Fatalf("no Debian 13 could be made from apt's mirrors:\n%s", tried)
}

// The time does not matter: here it is the year 2000.
func TestSameTime(t *testing.T) {
	needApt(t)
	const tiny = `
kernel = "linux-image-cloud-amd64"
exclude = ["kmod", "linux-base", "initramfs-tools"]
[root]
directories = [{ path = "/dev", mode = 0o755 }]
[modules]
stub = ["erofs"]
`
	spec, err := ParseSpec("tiny.toml", []byte(tiny))
	if err != nil {
		t.Fatal(err)
	}
	dir, store := t.TempDir(), packageStore(t)
	specFile, lockFile, builder := filepath.Join(dir, "tiny.toml"), filepath.Join(dir, "lock"), filepath.Join(dir, "buildimage")
	if err := os.WriteFile(specFile, []byte(tiny), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"go", "build", "-trimpath", "-o", builder, "./testdata/buildimage"}, {builder, "lock", lockFile, store, specFile, DefaultProfile}} {
		cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
	}
	lock, err := os.ReadFile(lockFile)
	if err != nil {
		t.Fatal(err)
	}
	in := Inputs{Lock: lock, Store: store, Programs: map[string]string{"mayfly-stub": builder, "mayfly-init": builder}}
	now, then := filepath.Join(dir, "now"), filepath.Join(dir, "then")
	if _, err := spec.Build(t.Context(), in, now); err != nil {
		t.Fatal(err)
	}
	var built Result
	synctest.Test(t, func(t *testing.T) {
		if year := time.Now().UTC().Year(); year != 2000 {
			t.Fatalf("the year is %d", year)
		}
		var err error
		if built, err = spec.Build(t.Context(), in, then); err != nil {
			t.Fatal(err)
		}
	})
	sameImages(t, now, then)
	opened, err := OpenRelease(then, &release.Statement{Kernel: built.Kernel, Stub: built.Stub, Root: built.Root, Lock: built.Lock})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := opened.SBOM(); err != nil {
		t.Error(err)
	}
}

// An image for servers of metal is made of Debian's whole kernel, with drivers of network cards, bonding and VLANs for the stub to load.
func TestMetal(t *testing.T) {
	needApt(t)
	dir, store := t.TempDir(), packageStore(t)
	lock, builder, out := filepath.Join(dir, "lock"), filepath.Join(dir, "buildimage"), filepath.Join(dir, "out")
	var text []byte
	for _, args := range [][]string{{"go", "build", "-o", builder, "./testdata/buildimage"}, {builder, "lock", lock, store, "-", "metal"},
		{builder, lock, store, out, "-", "-", "mayfly-stub=" + builder, "mayfly-init=" + builder, "tunnel=" + builder, "bastion=" + builder}} {
		cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		var err error
		if text, err = cmd.Output(); err != nil {
			t.Fatalf("%v: %v", args, err)
		}
	}
	var r Result
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	if r.Profile != "metal" || !strings.HasSuffix(r.Uname, "-amd64") || strings.Contains(r.Uname, "cloud") {
		t.Errorf("profile %q, kernel %q", r.Profile, r.Uname)
	}
	data, err := os.ReadFile(filepath.Join(out, release.StubFile))
	if err != nil {
		t.Fatal(err)
	}
	stub, err := stubTree(data)
	if err != nil {
		t.Fatal(err)
	}
	list := strings.Fields(string(stub[release.StubModulesPath].data))
	place := map[string]int{}
	for i, at := range list {
		if stub[at] == nil {
			t.Errorf("%s is listed, and not there", at)
		}
		place[moduleOf(at)] = i + 1
	}
	for _, name := range []string{"bonding", "8021q", "e1000e", "igb", "ixgbe", "i40e", "ice", "mlx5_core", "bnxt_en", "tg3", "bnx2x", "virtio_net"} {
		if place[name] == 0 {
			t.Errorf("the stub loads no %s", name)
		}
	}
	if place["crc32c_generic"] == 0 || place["crc32c_generic"] > place["libcrc32c"] || place["libcrc32c"] > place["erofs"] {
		t.Errorf("erofs is loaded as number %d, libcrc32c as %d, what it asks for as %d", place["erofs"], place["libcrc32c"], place["crc32c_generic"])
	}
	if place["tls"] == 0 || place["tls"] > place["bonding"] {
		t.Errorf("bonding is loaded as number %d, before tls (%d), which it needs", place["bonding"], place["tls"])
	}
	t.Logf("vmlinuz %d, stub.cpio %d, root.erofs %d bytes; firmware that no package holds: %q", r.Kernel.Size, r.Stub.Size, r.Root.Size, r.NoFirmware)
}

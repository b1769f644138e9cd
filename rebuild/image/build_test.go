package image

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"mayfly/rebuild/release"
)

// packageStore is shared by tests and runs: what is in it is checked by hash.
func packageStore(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		return t.TempDir()
	}
	return filepath.Join(cache, "mayfly", "packages")
}

func needApt(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("asks apt and unpacks a kernel; left out with -short")
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		t.Skip("SKIPPED: no apt-get on this host")
	}
}

// The same lock and programs give the same bytes from another directory, with another umask, time zone, locale, home, temporary
// directory and number of processors.
func TestBuildTwice(t *testing.T) {
	needApt(t)
	store := packageStore(t)
	lock, err := Lock(t.Context(), Default(), store)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Lock(t.Context(), Default(), store)
	if err != nil || !bytes.Equal(lock, again) {
		t.Errorf("two locks differ (%v)", err)
	}
	dir := t.TempDir()
	module, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(dir, "another", "place")
	copyModule(t, module, copied)
	lockFile := filepath.Join(dir, "image.lock")
	if err := os.WriteFile(lockFile, lock, 0o600); err != nil {
		t.Fatal(err)
	}
	runs := []struct {
		name, module, umask string
		env                 []string
	}{
		{"plain", module, "022", nil},
		{"varied", copied, "077", []string{"TZ=Asia/Kathmandu", "LC_ALL=C.UTF-8", "GOMAXPROCS=1", "HOME=" + t.TempDir(), "TMPDIR=" + t.TempDir(), "GOFLAGS=-v"}},
	}
	builder := filepath.Join(dir, "buildimage")
	if text, err := exec.Command("go", "build", "-o", builder, "./testdata/buildimage").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	var outs []string
	for _, run := range runs {
		out := filepath.Join(dir, run.name)
		outs = append(outs, out)
		// A shell, for its umask.
		cmd := exec.Command("sh", "-c", "umask "+run.umask+" && exec \"$0\" \"$@\"", builder, lockFile, store, out, "-", run.module)
		cmd.Env = append(os.Environ(), "GOCACHE="+goEnv(t, "GOCACHE"), "GOMODCACHE="+goEnv(t, "GOMODCACHE"))
		cmd.Env = append(cmd.Env, run.env...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		text, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v\n%s", run.name, err, stderr.Bytes())
		}
		var r Result
		if err := json.Unmarshal(text, &r); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: vmlinuz %d, stub.cpio %d, root.erofs %d bytes; largest %v", run.name, r.Kernel.Size, r.Stub.Size, r.Root.Size, r.Largest[:4])
	}
	for _, name := range []string{release.KernelFile, release.StubFile, release.RootFile, release.LockFile} {
		a, err := os.ReadFile(filepath.Join(outs[0], name))
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(outs[1], name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a, b) {
			t.Errorf("%s: the two builds differ", name)
		}
	}
	checkRoot(t, filepath.Join(outs[0], release.RootFile))
}

func goEnv(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.Command("go", "env", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// copyModule copies the module's sources, without what hides.
func copyModule(t *testing.T, from, to string) {
	t.Helper()
	entries, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		a, b := filepath.Join(from, e.Name()), filepath.Join(to, e.Name())
		switch {
		case strings.HasPrefix(e.Name(), "."):
		case e.IsDir():
			copyModule(t, a, b)
		case e.Type().IsRegular():
			data, err := os.ReadFile(a)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.MkdirAll(to, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(b, data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// checkRoot looks into a root for what has to be there and what must not.
func checkRoot(t *testing.T, file string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	root, _ := readRoot(t, data)
	for path, want := range map[string]string{
		"usr/sbin/sshd":          "-rwxr-xr-x",
		"usr/sbin/unbound":       "-rwxr-xr-x",
		"usr/sbin/mayfly-init":   "-rwxr-xr-x",
		"usr/bin/tunnel":         "-rwxr-xr-x",
		"usr/bin/busybox":        "-rwxr-xr-x",
		"etc/passwd":             "-rw-r--r--",
		"etc/shadow":             "-rw-------",
		"usr/share/dns/root.key": "-rw-r--r--",
		"tmp":                    "dtrwxrwxrwx",
		"run":                    "drwxr-xr-x",
		"var/lib/unbound":        "drwxr-xr-x",
	} {
		n := root["/"+path]
		if n == nil {
			t.Errorf("%s is not in the root", path)
			continue
		}
		if got := n.mode.String(); got != want {
			t.Errorf("%s has mode %s, want %s", path, got, want)
		}
	}
	for _, path := range []string{"usr/bin/perl", "usr/bin/dash", "usr/share/doc", "usr/share/man", "usr/bin/ssh-keygen", "boot", "etc/init.d", "etc/ssh/sshd_config", "usr/lib/systemd", "etc/machine-id"} {
		if root["/"+path] != nil {
			t.Errorf("%s is in the root, and nothing needs it", path)
		}
	}
}

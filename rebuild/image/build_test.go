package image

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
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

package dns

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// packages hold Debian's unbound and what it links to beyond a small system.
var packages = []string{
	"unbound", "libevent-2.1-7", "libnghttp2-14", "libprotobuf-c1", "libpython3.11", "libpython3.11-minimal", "libpython3.11-stdlib",
	"libssl3", "libexpat1", "dns-root-data",
}

// debian returns a command for one of unbound's programs: the machine's own, or one from packages that are downloaded and unpacked,
// never installed, so that no service starts.
func debian(t *testing.T) func(program string, args ...string) *exec.Cmd {
	t.Helper()
	if _, err := os.Stat("/usr/sbin/unbound-checkconf"); err == nil {
		return func(program string, args ...string) *exec.Cmd { return exec.Command("/usr/sbin/"+program, args...) }
	}
	apt, err := exec.LookPath("apt-get")
	if err != nil {
		t.Skip("needs unbound (package unbound), or apt-get to download it")
	}
	dir, root := t.TempDir(), filepath.Join(t.TempDir(), "root")
	download := exec.Command(apt, append([]string{"download"}, packages...)...)
	download.Dir = dir
	if out, err := download.CombinedOutput(); err != nil {
		t.Skipf("needs unbound (package unbound); apt-get download: %v\n%s", err, out)
	}
	archives, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(archives) != len(packages) {
		t.Fatalf("downloaded %v, %v", archives, err)
	}
	for _, a := range archives {
		if out, err := exec.Command("dpkg", "-x", a, root).CombinedOutput(); err != nil {
			t.Fatalf("unpacking %s: %v\n%s", a, err, out)
		}
	}
	libraries, err := filepath.Glob(filepath.Join(root, "usr/lib/*-linux-gnu*"))
	if err != nil || len(libraries) == 0 {
		t.Fatalf("no libraries in the packages: %v", err)
	}
	return func(program string, args ...string) *exec.Cmd {
		cmd := exec.Command(filepath.Join(root, "usr/sbin", program), args...)
		cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+strings.Join(libraries, ":"), "MAYFLY_TEST_ROOT="+root)
		return cmd
	}
}

// relocated writes a configuration for a machine where unbound's user is missing and the root's files lie elsewhere.
func relocated(t *testing.T, text []byte, changes ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "unbound.conf")
	if err := os.WriteFile(path, []byte(strings.NewReplacer(changes...).Replace(string(text))), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func rootOf(cmd *exec.Cmd) string {
	for _, e := range cmd.Env {
		if dir, ok := strings.CutPrefix(e, "MAYFLY_TEST_ROOT="); ok {
			return dir
		}
	}
	return ""
}

func quote(s string) string { return fmt.Sprintf("%q", s) }

package image

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// Environment of the child of TestLockAsNobody.
const childLock = "MAYFLY_TEST_LOCK_STORE"

// A user who is not root, on a host with empty package lists and a third-party source that cannot be reached, gets a lock.
func TestLockAsNobody(t *testing.T) {
	needApt(t)
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: only root can become another user")
	}
	const nobody = 65534
	dir, err := os.MkdirTemp("", "mayfly-lock-") // t.TempDir's parents are closed to others
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, sub := range []string{"lists/partial", "store"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(filepath.Join(dir, sub), nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	parts := filepath.Join(dir, "sources")
	if err := copySources(parts); err != nil {
		t.Fatal(err)
	}
	broken := filepath.Join(parts, "broken.list")
	config := filepath.Join(dir, "apt.conf")
	child := filepath.Join(dir, "child")
	self, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	for file, data := range map[string]string{
		broken: "deb [trusted=yes] http://127.0.0.1:1/debian bookworm main\n",
		config: "Dir::Etc::sourcelist \"/dev/null\";\nDir::Etc::sourceparts \"" + parts + "\";\nDir::State::lists \"" + filepath.Join(dir, "lists") + "\";\nAcquire::http::Timeout \"20\";\n",
		child:  string(self),
	} {
		if err := os.WriteFile(file, []byte(data), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(child, "-test.run=TestLockOnce")
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "APT_CONFIG=" + config, childLock + "=" + filepath.Join(dir, "store"), "HOME=" + dir}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}

// copySources copies the host's own sources into a directory, so that one more can stand beside them.
func copySources(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	files, err := filepath.Glob("/etc/apt/sources.list.d/*")
	if err != nil {
		return err
	}
	for _, file := range append(files, "/etc/apt/sources.list") {
		data, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(file)), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// TestLockOnce is what the child of TestLockAsNobody runs.
func TestLockOnce(t *testing.T) {
	store := os.Getenv(childLock)
	if store == "" {
		return // not a child
	}
	lock, err := Lock(t.Context(), Default(), store)
	if err != nil {
		t.Fatal(err)
	}
	l, err := ParseLock(lock)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range l.Packages {
		if err := checkStored(store, p); err != nil {
			t.Error(err)
		}
	}
}

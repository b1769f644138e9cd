package account

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"mayfly/internal/hint"
)

// TestMain is the program that acts, when a test starts it again as another process.
func TestMain(m *testing.M) {
	path := os.Getenv("ACCOUNT_TEST_PATH")
	if path == "" {
		os.Exit(m.Run())
	}
	changed, err := ActAsOwner(path)
	groups, _ := os.Getgroups()
	fmt.Println(changed, err, "hint:", hint.Of(err), "now:", os.Geteuid(), os.Getegid(), groups)
	if err := os.WriteFile(filepath.Join(path, "made"), nil, 0o600); err != nil {
		fmt.Println(err)
	}
}

func TestActAsOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: another user's directory")
	}
	const uid = 54327
	dir, err := os.MkdirTemp("", "account-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	act := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
		cmd.Env = append(os.Environ(), "ACCOUNT_TEST_PATH="+dir)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return strings.TrimSpace(string(out))
	}
	if got, want := act(program), "false <nil> hint:  now: 0 0"; !strings.HasPrefix(got, want) {
		t.Errorf("root's own directory: got %q, want %q", got, want)
	}
	if err := os.Remove(filepath.Join(dir, "made")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, uid, uid); err != nil {
		t.Fatal(err)
	}
	if got, want := act(program), fmt.Sprintf("true <nil> hint:  now: %d %d [%d]", uid, uid, uid); got != want {
		t.Errorf("another's directory: got %q, want %q", got, want)
	}
	if owner, _, err := Owner(filepath.Join(dir, "made")); err != nil || owner != uid {
		t.Errorf("what was made belongs to %d, %v, want %d", owner, err, uid)
	}
}

func TestRunAs(t *testing.T) {
	for uid, want := range map[int]string{0: "runuser -u root --", 54327: "setpriv --reuid=54327 --regid=54327 --clear-groups --"} {
		if got := RunAs(uid); got != want {
			t.Errorf("user %d: got %q, want %q", uid, got, want)
		}
	}
}

func TestStrangerIsRefused(t *testing.T) {
	path := "/"
	if os.Geteuid() == 0 { // then somebody else has to be the stranger
		defer func(was func() int) { self = was }(self)
		self = func() int { return 54327 }
	}
	_, err := ActAsOwner(path)
	if err == nil || !strings.Contains(hint.Of(err), "runuser -u root --") {
		t.Errorf("got %v, hint %q", err, hint.Of(err))
	}
}

package users

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestGiveFollowsNothing: a directory of the path that has become a link while the table was walked leads give nowhere.
func TestGiveFollowsNothing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root gives files away")
	}
	dir, victim := t.TempDir(), t.TempDir()
	secret := filepath.Join(victim, "secret")
	if err := os.WriteFile(secret, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, filepath.Join(dir, "machines")); err != nil {
		t.Fatal(err)
	}
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(root)
	table := Table{Separate: true, Group: 54100, uid: map[Role]int{Root: 0, Signer: 54101, Serve: 54102, Checkin: 54103}}
	for _, name := range []string{"machines/secret", "machines", "../" + filepath.Base(victim) + "/secret"} {
		if err := table.give(root, name, place{owner: Serve, never: others}, 0); err == nil {
			t.Errorf("%s: got nil, want a refusal to follow", name)
		}
	}
	var stat unix.Stat_t
	if err := unix.Stat(secret, &stat); err != nil || stat.Uid != 0 || stat.Mode&0o777 != 0o600 {
		t.Errorf("the file behind the link has owner %d and mode %o, %v", stat.Uid, stat.Mode, err)
	}
}

package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"mayfly/rebuild/release"
)

// mount is one line of the table of writable places.
type mount struct {
	kind, path, options string
	flags               uintptr
}

const (
	quiet   = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	homeful = unix.MS_NOSUID | unix.MS_NODEV // engineers may run what they bring
)

// mountTable is everything that can be written to, in order. Sizes are bounds: together they stay far below the least machine.
// What mayfly-stub has mounted already is kept.
var mountTable = []mount{
	{"proc", "/proc", "", quiet},
	{"sysfs", "/sys", "", quiet},
	{"cgroup2", groupRoot, "", quiet},
	{"devtmpfs", "/dev", "mode=0755,size=64k", unix.MS_NOSUID},
	{"devpts", "/dev/pts", "mode=0620,ptmxmode=0666,gid=5", unix.MS_NOSUID | unix.MS_NOEXEC},
	{"tmpfs", "/dev/shm", "mode=1777,size=4m,nr_inodes=256", quiet},
	{"tmpfs", "/run", "mode=0755,size=16m,nr_inodes=4k", quiet},
	{"tmpfs", "/tmp", "mode=1777,size=16m,nr_inodes=4k", quiet},
	{"tmpfs", "/var/tmp", "mode=1777,size=8m,nr_inodes=1k", quiet},
	{"tmpfs", homeDir, "mode=0755,size=1m,nr_inodes=16k", homeful}, // each home is mounted in it when its engineer comes
	{"tmpfs", "/root", "mode=0700,size=1m,nr_inodes=64", quiet},
	{"tmpfs", "/var/lib/unbound", "mode=0755,size=1m,nr_inodes=64", quiet},
}

// directories are made after the mounts. runDir can be passed by everybody, since sshd reads a user's keys as that user; what
// is secret lies in directories and files of its own mode.
var directories = []struct {
	path string
	mode os.FileMode
	uid  int
}{
	{"/run/sshd", 0o755, 0},
	{runDir, 0o711, 0},
	{runDir + "/etc", 0o755, 0},
	{sshDir, 0o711, 0},
	{authorizedDir, 0o755, 0},
	{principalsDir, 0o755, 0},
	{unboundDir, 0o755, 0},
	{tunnelDir, 0o700, tunnelUID},
}

// Where the machine's own files lie, all in RAM.
const (
	runDir        = release.RunDir
	sshDir        = runDir + "/ssh"
	authorizedDir = sshDir + "/authorized_keys"
	principalsDir = sshDir + "/principals"
	authorityFile = sshDir + "/session_authority.pub"
	unboundDir    = runDir + "/unbound"
	tunnelDir     = runDir + "/tunnel"
)

func mountAll() error {
	// Nothing that is mounted here shows elsewhere, and the other way round.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	for _, m := range mountTable {
		if err := mountOne(m); err != nil {
			return err
		}
	}
	// Engineers see their own processes only.
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_REMOUNT|quiet, "hidepid=2"); err != nil {
		return fmt.Errorf("hiding others' processes: %w", err)
	}
	for _, d := range directories {
		if err := makeDirectory(d.path, d.mode, d.uid); err != nil {
			return err
		}
	}
	return nil
}

func mountOne(m mount) error {
	if m.path == "/dev/pts" || m.path == "/dev/shm" {
		if err := os.Mkdir(m.path, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("making %s: %w", m.path, err)
		}
	}
	there, err := mountPoint(m.path)
	if err != nil {
		return err
	}
	if there {
		return nil
	}
	if err := unix.Mount(m.kind, m.path, m.kind, m.flags, m.options); err != nil {
		return fmt.Errorf("mounting %s on %s: %w", m.kind, m.path, err)
	}
	return nil
}

// mountPoint reports whether something is mounted on path: its device differs from its parent's.
func mountPoint(path string) (bool, error) {
	var here, above unix.Stat_t
	if err := unix.Lstat(path, &here); err != nil {
		return false, fmt.Errorf("looking at %s: %w", path, err)
	}
	parent := path[:strings.LastIndexByte(path, '/')+1]
	if err := unix.Lstat(parent, &above); err != nil {
		return false, fmt.Errorf("looking at %s: %w", parent, err)
	}
	return here.Dev != above.Dev, nil
}

// makeDirectory makes a directory, or gives one that is there its mode and owner.
func makeDirectory(path string, mode os.FileMode, uid int) error {
	if err := os.Mkdir(path, mode); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("making %s: %w", path, err)
	}
	if err := os.Chmod(path, mode); err != nil {
		return fmt.Errorf("making %s: %w", path, err)
	}
	if err := os.Lchown(path, uid, uid); err != nil {
		return fmt.Errorf("making %s: %w", path, err)
	}
	return nil
}

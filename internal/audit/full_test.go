package audit

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fullDisk names the directory on which this program, run again in a mount namespace of its own, puts a disk of a few MiB.
const fullDisk = "MAYFLY_AUDIT_FULL_DISK"

const (
	diskSize    = 8 << 20
	diskReserve = 3 << 20
)

// TestFullDisk fills a real file system under a log.
func TestFullDisk(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fullDisk+"="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) {
		t.Skip("this user may not mount a disk of his own: run it as root, or allow user namespaces")
	}
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// fillDisk is what the test is about; it runs where only it sees the disk.
func fillDisk(dir string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0700", diskSize)); err != nil {
		return err
	}
	var later time.Duration
	l, err := Open(Options{Dir: filepath.Join(dir, "log"), Name: "lab/test", Reserve: diskReserve, now: func() time.Time {
		later += spaceEvery // free space is looked at each time
		return time.Now().Add(later)
	}})
	if err != nil {
		return err
	}
	want := 0
	must := func(what string, err error) error {
		if err == nil {
			want++
			return nil
		}
		return fmt.Errorf("%s: %w", what, err)
	}
	if err := errors.Join(must("login", l.AppendOpening("login", 1)), l.AppendRefused("refused", 1), l.Healthy()); err != nil {
		return fmt.Errorf("with space: %w", err)
	}

	// Under the reserve nothing begins, and what is under way still ends.
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, diskSize-diskReserve), 0o600); err != nil {
		return err
	}
	if err := l.AppendOpening("login", 2); !errors.Is(err, ErrReserve) {
		return fmt.Errorf("login under the reserve: got %w, want %w", err, ErrReserve)
	}
	if err := l.AppendRefused("refused", 2); !errors.Is(err, ErrReserve) {
		return fmt.Errorf("refusal under the reserve: got %w, want %w", err, ErrReserve)
	}
	if err := l.Healthy(); !errors.Is(err, ErrReserve) {
		return fmt.Errorf("health under the reserve: got %w, want %w", err, ErrReserve)
	}
	for i := range 100 {
		if err := must("closing record", l.Append("connection", i)); err != nil {
			return err
		}
	}

	// A disk that is full denies everything, and forgets nothing that it took.
	full := false
	for range 2000 {
		if err := l.Append("connection", strings.Repeat("x", 30000)); err == nil {
			want++
		} else if full = errors.Is(err, unix.ENOSPC); full {
			break
		} else {
			return err
		}
	}
	if !full || !errors.Is(l.Healthy(), unix.ENOSPC) {
		return fmt.Errorf("full disk: got %v, health %w", full, l.Healthy())
	}
	if err := os.Remove(ballast); err != nil {
		return err
	}
	if err := must("login after space was made", l.AppendOpening("login", 3)); err != nil {
		return err
	}
	if err := l.Close(); err != nil {
		return err
	}
	key, err := ReadVerifier(filepath.Join(dir, "log", KeyName+".pub"))
	if err != nil {
		return err
	}
	if r, err := Verify(filepath.Join(dir, "log"), Trusted{Log: key}); err != nil || r.Size != uint64(want) {
		return fmt.Errorf("got %+v, %w, want %d records", r, err, want)
	}
	return nil
}

// TestFailingDisk has the disk fail to say whether it holds a record: nothing more is written then.
func TestFailingDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	l := openAt(t, dir)
	if err := l.Append("login", 1); err != nil {
		t.Fatal(err)
	}
	real := l.segment.file
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	l.segment.file = full
	if err := l.Append("login", 2); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("got %v, want %v", err, unix.ENOSPC)
	}
	l.segment.file = real
	if err := l.Append("login", 3); err == nil || l.Healthy() == nil {
		t.Errorf("after a failure that could not be undone: got %v, health %v", err, l.Healthy())
	}
	if err := errors.Join(full.Close(), l.Close()); err != nil {
		t.Error(err)
	}
	closeLog(t, openAt(t, dir))
	verify(t, dir, 1)
}

func TestUnpublishedIsBounded(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	l := openAt(t, dir)
	l.mu.Lock()
	l.unpublished = maxUnpublished/2 + 1
	l.mu.Unlock()
	if err := l.AppendOpening("login", 1); !errors.Is(err, errUnpublished) {
		t.Errorf("AppendOpening: got %v, want %v", err, errUnpublished)
	}
	if err := l.Append("connection", 1); err != nil {
		t.Errorf("Append: %v", err)
	}
	l.mu.Lock()
	l.unpublished = maxUnpublished + 1
	l.mu.Unlock()
	if err := l.Append("connection", 1); !errors.Is(err, errUnpublished) {
		t.Errorf("Append: got %v, want %v", err, errUnpublished)
	}
	closeLog(t, l)
	verify(t, dir, 1)
}

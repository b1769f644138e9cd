package rotate

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"mayfly/internal/hint"
)

// Lock is held by the one rotate of a fleet. The kernel gives it back when the process ends, however it ends.
type Lock struct{ f *os.File }

// TakeLock takes the lock, or says who holds it.
func TakeLock(path string) (*Lock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the rotate lock: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("locking %s: %w", path, err)
		}
		holder := "another process"
		if data, err := io.ReadAll(io.LimitReader(f, 32)); err == nil && len(data) > 0 {
			holder = "process " + strings.TrimSpace(string(data))
		}
		return nil, hint.New(fmt.Errorf("a rotate of this fleet runs already (%s)", holder),
			"wait for it to end, or stop it with Ctrl-C; `fleetctl status` shows what it does")
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = fmt.Fprintf(f, "%d\n", os.Getpid())
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("writing %s: %w", path, err)
	}
	return &Lock{f}, nil
}

// Release gives the lock back.
func (l *Lock) Release() error { return l.f.Close() }

package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"mayfly/internal/hint"
)

// firstInherited is the first descriptor that a service manager hands over (sd_listen_fds(3), SD_LISTEN_FDS_START).
const firstInherited = 3

// Inherited is the socket that a service manager listens on for us, or nil. It stays open there: the first ssh starts the agent.
func Inherited() (*net.UnixListener, error) {
	pid, count := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS")
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} { // nothing that we start is to take them for its own
		if err := os.Unsetenv(name); err != nil {
			return nil, err
		}
	}
	if pid != strconv.Itoa(os.Getpid()) || count == "" {
		return nil, nil
	}
	mend := "bastion-agent.socket has one ListenStream, a path; bastion-agent serve --print-unit bastion-agent.socket shows ours"
	if count != "1" {
		return nil, hint.New(fmt.Errorf("the service manager hands over %q sockets, want 1", count), "%s", mend)
	}
	unix.CloseOnExec(firstInherited)
	file := os.NewFile(firstInherited, "inherited socket")
	defer file.Close()
	l, err := net.FileListener(file)
	if err != nil {
		return nil, hint.New(fmt.Errorf("taking over the service manager's socket: %w", err), "%s", mend)
	}
	own, ok := l.(*net.UnixListener)
	if !ok {
		return nil, errors.Join(hint.New(fmt.Errorf("the service manager's socket, %s, is no unix socket", l.Addr()), "%s", mend), l.Close())
	}
	own.SetUnlinkOnClose(false)
	return own, nil
}

// Listen makes the socket, mode 0600, in a directory that is the user's alone. A socket that a dead agent left is replaced; one that a
// living agent listens on is not.
func Listen(path string) (*net.UnixListener, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the socket's directory: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("the socket's directory: %w", err)
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); !ok || int(owner.Uid) != os.Getuid() || info.Mode().Perm()&0o077 != 0 {
		return nil, hint.New(fmt.Errorf("the socket's directory %s is open to others (mode %v)", dir, info.Mode().Perm()),
			"chmod 700 it, or name a directory of your own with --socket")
	}
	free, err := alone(path + ".lock")
	if err != nil {
		return nil, err
	}
	defer free()
	if err := clearWay(path); err != nil {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listening: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// alone waits until no other agent is on its way to this path: of two that find a dead one's socket, the second would take the first's away. Who listens
// needs it no more: it is found to live, and takes its path away before it stops listening.
func alone(path string) (free func(), err error) {
	lock, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("the socket's lock: %w", err)
	}
	for {
		err := unix.Flock(int(lock.Fd()), unix.LOCK_EX)
		if err == nil {
			return func() { lock.Close() }, nil
		}
		if !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(fmt.Errorf("the socket's lock %s: %w", path, err), lock.Close())
		}
	}
}

// clearWay removes a socket that nobody listens on.
func clearWay(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("the socket: %w", err)
	case info.Mode().Type() != fs.ModeSocket:
		return hint.New(fmt.Errorf("%s is there and no socket", path), "move it away, or name another path with --socket")
	}
	conn, err := net.DialTimeout("unix", path, dialTime)
	if err == nil {
		conn.Close()
		return hint.New(fmt.Errorf("an agent listens on %s already", path), "use it: SSH_AUTH_SOCK=%s; or name another path with --socket", path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("the socket %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("removing the socket that a dead agent left: %w", err)
	}
	return nil
}

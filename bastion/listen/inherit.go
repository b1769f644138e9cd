package listen

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"mayfly/internal/hint"
)

// firstInherited is the first descriptor that a service manager hands over (sd_listen_fds(3), SD_LISTEN_FDS_START).
const firstInherited = 3

// Inherited takes over the listening socket that a service manager has made for us, if it has; nil if not. The socket stays
// open there, so that nobody is refused while one bastion ends and the next begins.
func Inherited() (*os.File, error) {
	pid, count := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS")
	// Nothing that we might start is to take them for its own.
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		if err := os.Unsetenv(name); err != nil {
			return nil, err
		}
	}
	if pid != strconv.Itoa(os.Getpid()) || count == "" {
		return nil, nil
	}
	if count != "1" {
		return nil, hint.New(fmt.Errorf("the service manager hands over %q sockets, want 1", count), "bastion.socket: one ListenStream")
	}
	unix.CloseOnExec(firstInherited)
	return os.NewFile(firstInherited, "inherited socket"), nil
}

// TakeOver puts the filter on a socket that is bound already, before anything is accepted from it.
func TakeOver(file *os.File, address netip.AddrPort, filter []bpf.RawInstruction) (*Listener, error) {
	if err := checkInherited(int(file.Fd())); err != nil {
		return nil, hint.New(fmt.Errorf("taking over the service manager's socket: %w", err), "bastion.socket: ListenStream = ADDRESS:PORT")
	}
	l, err := net.FileListener(file)
	if err != nil {
		return nil, fmt.Errorf("taking over the service manager's socket: %w", err)
	}
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		return nil, errors.Join(fmt.Errorf("taking over the service manager's socket: %s is no TCP", l.Addr()), l.Close())
	}
	own := tcp.Addr().(*net.TCPAddr).AddrPort()
	own = netip.AddrPortFrom(own.Addr().Unmap(), own.Port())
	if want := netip.AddrPortFrom(address.Addr().Unmap(), address.Port()); own != want {
		return nil, errors.Join(hint.New(fmt.Errorf("the service manager's socket listens on %s, bastion.toml says %s", own, want),
			"`systemctl edit bastion.socket`: in [Socket] an empty ListenStream=, then ListenStream=%s", want), l.Close())
	}
	raw, err := tcp.SyscallConn()
	if err == nil {
		err = control(raw, func(fd int) error {
			return errors.Join(attachFilter(fd, filter), keepAlive(fd))
		})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("taking over the service manager's socket: %w", err), l.Close())
	}
	return &Listener{tcp}, nil
}

// checkInherited asks for a listening TCP socket, and no other kind: the filter of a Multipath TCP socket would not see its subflows.
func checkInherited(fd int) error {
	for _, want := range []struct {
		option, value int
		what          string
	}{
		{unix.SO_TYPE, unix.SOCK_STREAM, "not a stream"},
		{unix.SO_PROTOCOL, unix.IPPROTO_TCP, "not TCP"},
		{unix.SO_ACCEPTCONN, 1, "not listening"},
	} {
		got, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, want.option)
		if err != nil {
			return err
		}
		if got != want.value {
			return errors.New(want.what)
		}
	}
	return nil
}

// keepAlive sets what an accepted connection inherits, as On does by its own ways.
func keepAlive(fd int) error {
	seconds := func(d time.Duration) int { return int(d / time.Second) }
	return errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1),
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, seconds(keepAliveIdle)),
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, seconds(keepAliveInterval)),
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, keepAliveCount),
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout.Milliseconds())),
	)
}

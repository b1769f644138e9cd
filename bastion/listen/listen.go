// Package listen is the bastion's listening socket, with a filter on it by which the kernel drops what is not on the address list: a stranger's
// SYN gets no answer at all. The socket is its own, or one that the service manager has kept. The filter spares work and decides nothing: who has
// connected is looked at again.
package listen

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"mayfly/internal/hint"
)

// Implementation constants of the client's TCP connection: a silent peer is found dead within about a minute.
const (
	keepAliveIdle     = 15 * time.Second
	keepAliveInterval = 15 * time.Second
	keepAliveCount    = 3
	userTimeout       = time.Minute
)

// KeepAlive is for connections to servers as well.
var KeepAlive = net.KeepAliveConfig{Enable: true, Idle: keepAliveIdle, Interval: keepAliveInterval, Count: keepAliveCount}

// Listener is a listening TCP socket with a source address filter that can be swapped.
type Listener struct {
	*net.TCPListener
}

// On opens the socket with the filter on it before it is bound, so that there is no moment without.
func On(ctx context.Context, address netip.AddrPort, filter []bpf.RawInstruction) (*Listener, error) {
	config := net.ListenConfig{
		KeepAliveConfig: KeepAlive,
		Control: func(_, _ string, raw syscall.RawConn) error {
			return control(raw, func(fd int) error {
				return errors.Join(
					attachFilter(fd, filter),
					unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout.Milliseconds())),
				)
			})
		},
	}
	// A filter on an MPTCP socket would not see its subflows.
	config.SetMultipathTCP(false)
	l, err := config.Listen(ctx, "tcp", address.String())
	if err != nil {
		err = fmt.Errorf("listening on %s: %w", address, err)
		switch {
		case errors.Is(err, unix.EADDRINUSE):
			return nil, hint.New(err, "another program has the port: ss -ltnp 'sport = :%d' names it", address.Port())
		case errors.Is(err, unix.EADDRNOTAVAIL):
			return nil, hint.New(err, "this machine has no such address: ip address shows those it has")
		case errors.Is(err, unix.EACCES):
			return nil, hint.New(err, "ports below 1024 need CAP_NET_BIND_SERVICE")
		}
		return nil, err
	}
	return &Listener{l.(*net.TCPListener)}, nil
}

// Swap replaces the filter; the kernel does it at once for all segments. While two large filters do not fit into the socket's
// memory, everything is dropped for a moment: clients send their SYN again.
func (l *Listener) Swap(filter []bpf.RawInstruction) error {
	raw, err := l.SyscallConn()
	if err == nil {
		err = control(raw, func(fd int) error {
			err := attachFilter(fd, filter)
			if !errors.Is(err, unix.ENOMEM) {
				return err
			}
			nobody, err := Filter(nil)
			if err != nil {
				return err
			}
			if err := attachFilter(fd, nobody); err != nil {
				return err
			}
			return attachFilter(fd, filter)
		})
	}
	if err != nil {
		return fmt.Errorf("swapping address filter: %w", err)
	}
	return nil
}

// Drops reads how many segments the kernel has dropped at the listening socket: off the list, or while its queue was full.
func (l *Listener) Drops() (uint32, error) {
	raw, err := l.SyscallConn()
	if err != nil {
		return 0, err
	}
	var n uint32
	err = control(raw, func(fd int) error {
		n, err = socketDrops(fd)
		return err
	})
	return n, err
}

// Unfilter takes the inherited filter off an accepted connection: its address was checked, and each segment would pay for it.
func Unfilter(conn *net.TCPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	return control(raw, func(fd int) error {
		err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0)
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		return err
	})
}

func control(raw syscall.RawConn, f func(fd int) error) error {
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil {
		return err
	}
	return inner
}

func attachFilter(fd int, filter []bpf.RawInstruction) error {
	program := make([]unix.SockFilter, len(filter))
	for i, in := range filter {
		program[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
	if errors.Is(err, unix.ENOMEM) {
		return hint.New(fmt.Errorf("attaching address filter of %d instructions: %w", len(filter), err),
			"shorten the address list, or raise net.core.optmem_max")
	}
	if errors.Is(err, unix.EPERM) {
		return hint.New(fmt.Errorf("attaching address filter: %w", err),
			"this kernel wants CAP_NET_ADMIN for it: bastion/systemd/address-filter.conf is the drop-in for bastion.service")
	}
	if err != nil {
		return fmt.Errorf("attaching address filter: %w", err)
	}
	return nil
}

// memInfoDrops is SK_MEMINFO_DROPS (linux/sock_diag.h).
const memInfoDrops = 8

func socketDrops(fd int) (uint32, error) {
	var info [memInfoDrops + 1]uint32
	size := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return 0, fmt.Errorf("reading socket's drop count: %w", errno)
	}
	return info[memInfoDrops], nil
}

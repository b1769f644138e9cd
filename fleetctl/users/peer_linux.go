package users

import (
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// Peer is the user at the other end of a unix socket, as the kernel knows it: of a client the one that connected, of a server the one that listens.
func Peer(conn net.Conn) (uid int, err error) {
	c, ok := conn.(*net.UnixConn)
	if !ok {
		return -1, errors.New("not a unix socket")
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, fmt.Errorf("asking who is there: %w", err)
	}
	var cred *unix.Ucred
	var failed error
	if err := raw.Control(func(fd uintptr) { cred, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return -1, fmt.Errorf("asking who is there: %w", err)
	}
	if failed != nil {
		return -1, fmt.Errorf("asking who is there: %w", failed)
	}
	return int(cred.Uid), nil
}

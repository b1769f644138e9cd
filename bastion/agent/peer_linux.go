package agent

import (
	"net"

	"golang.org/x/sys/unix"
)

// peerOf asks the kernel who has connected.
func peerOf(conn *net.UnixConn) (peer, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return peer{-1, 0}, err
	}
	var cred *unix.Ucred
	var inner error
	if err := raw.Control(func(fd uintptr) {
		cred, inner = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return peer{-1, 0}, err
	}
	if inner != nil {
		return peer{-1, 0}, inner
	}
	return peer{uid: int(cred.Uid), pid: int(cred.Pid)}, nil
}

package pivcard

import (
	"io"
	"net"

	"golang.org/x/sys/unix"
)

// quick reads from a connection and acknowledges what it read at once. Debian's vpcd writes the length of a message and the message apart, its
// kernel holds the second until the first is acknowledged, and ours would take 40 ms over that: for each APDU.
type quick struct{ net.Conn }

// Read also sets TCP_QUICKACK, which does not last.
func (q quick) Read(b []byte) (int, error) {
	n, err := q.Conn.Read(b)
	if tcp, ok := q.Conn.(*net.TCPConn); ok && err == nil {
		if raw, err := tcp.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1) }) // slow otherwise, not wrong
		}
	}
	return n, err
}

var _ io.Reader = quick{}

// Package wire is an engineer's TCP connection as the SSH library gets it.
//
// The library reads through 4 KiB, and writes each packet of 32 KiB in two pieces: that is more system calls than bytes are worth. The wire reads
// what is there at once, and holds what is written while somebody who writes several packets says so. In a handshake it holds what is written until the
// reader has nothing left to read: the library answers a key exchange with three packets, and each would be a segment by itself. Until authentication
// begins it counts packets, because what waits in the library behind a bad one stays for ever.
package wire

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Implementation constants of the wire.
const (
	readSize  = 128 << 10        // taken from the socket at once: several packets of 32 KiB
	writeSize = 64 << 10         // held back at most
	holdLimit = time.Millisecond // for how long, should the packet that was to follow not come
)

// WorthHolding is the size below which a piece makes one write by itself.
const WorthHolding = 4 << 10

var (
	readBuffers  = sync.Pool{New: func() any { return new([readSize]byte) }}
	writeBuffers = sync.Pool{New: func() any { return new([writeSize]byte) }}
)

// Conn is a TCP connection with buffers of its own. It has them only while bytes are in them, so that idle connections need none.
type Conn struct {
	net.Conn
	raw  syscall.RawConn // nil: not a socket, and reads are the connection's own
	take func(fd uintptr) bool

	// owned by the reader
	in        *[readSize]byte // nil when nothing is buffered
	from, to  int
	readError error

	gate     atomic.Pointer[gate] // until authentication begins
	greeting atomic.Bool          // handshake: what is written waits for the reader to wait

	mu      sync.Mutex // of what follows; held while the socket is written
	waits   bool       // while greeting: the reader waits for the peer, so that nothing may be held
	out     *[writeSize]byte
	n       int
	holds   int
	stalled bool // a hold took too long: nothing is held until all have ended
	timer   *time.Timer
	failed  error // what was held could not be written
}

var _ net.Conn = (*Conn)(nil)

// New takes a connection over.
func New(conn net.Conn) *Conn {
	w := &Conn{Conn: conn}
	w.gate.Store(&gate{})
	if s, ok := conn.(syscall.Conn); ok {
		if raw, err := s.SyscallConn(); err == nil {
			w.raw, w.take = raw, w.receive
		}
	}
	return w
}

// Read hands out what is buffered, or waits for more. The library has one reader.
func (w *Conn) Read(p []byte) (int, error) {
	n, err := w.read(p)
	if g := w.gate.Load(); g != nil {
		if passed := g.pass(p[:n]); passed < n {
			return passed, errTooMuchBefore
		}
	}
	return n, err
}

func (w *Conn) read(p []byte) (int, error) {
	if w.in == nil {
		if w.raw == nil {
			return w.Conn.Read(p)
		}
		if len(p) == 0 {
			return 0, nil
		}
		if err := w.raw.Read(w.take); err != nil {
			return 0, err
		}
		if w.readError != nil {
			return 0, w.readError
		}
	}
	n := copy(p, w.in[w.from:w.to])
	if w.from += n; w.from == w.to {
		readBuffers.Put(w.in)
		w.in = nil
	}
	return n, nil
}

// receive takes what the socket has. It is false if that is nothing yet.
func (w *Conn) receive(fd uintptr) bool {
	buffer := readBuffers.Get().(*[readSize]byte)
	for {
		n, err := unix.Read(int(fd), buffer[:])
		switch {
		case err == unix.EINTR:
			continue
		case n > 0:
			w.in, w.from, w.to, w.readError = buffer, 0, n, nil
			w.wait(false)
			return true
		}
		readBuffers.Put(buffer)
		w.wait(true)
		switch err {
		case unix.EAGAIN:
			return false
		case nil:
			w.readError = io.EOF
		default:
			w.readError = &net.OpError{Op: "read", Net: "tcp", Source: w.LocalAddr(), Addr: w.RemoteAddr(), Err: err}
		}
		return true
	}
}

// wait notes whether the reader waits for the peer, who may wait for what is held.
func (w *Conn) wait(waits bool) {
	if !w.greeting.Load() {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.waits = waits; waits {
		_ = w.flush() // the next Write says so
	}
}

// Open ends the counting of packets: authentication has begun.
func (w *Conn) Open() { w.gate.Store(nil) }

// Greets begins a handshake.
func (w *Conn) Greets() { w.greeting.Store(w.raw != nil) }

// Greeted ends it: from here on only Hold holds.
func (w *Conn) Greeted() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.greeting.Store(false)
	return w.flush()
}

// Write writes, or keeps what is to go with what follows. What was kept and could not be written later fails the next Write.
func (w *Conn) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failed != nil {
		return 0, w.failed
	}
	if !w.holding() {
		return w.Conn.Write(p)
	}
	if w.n+len(p) > writeSize {
		if err := w.flush(); err != nil {
			return 0, err
		}
	}
	if len(p) > writeSize {
		return w.Conn.Write(p)
	}
	if w.out == nil {
		w.out = writeBuffers.Get().(*[writeSize]byte)
	}
	w.n += copy(w.out[w.n:], p)
	return len(p), nil
}

// holding tells whether what is written now is kept; w.mu is held.
func (w *Conn) holding() bool {
	return w.holds > 0 && !w.stalled || w.greeting.Load() && !w.waits
}

// Hold begins a run of writes that shall leave together. Each has its Release.
func (w *Conn) Hold() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.holds++; w.holds > 1 {
		return
	}
	// The run may wait for the client's window, and the client for what is held.
	if w.timer == nil {
		w.timer = time.AfterFunc(holdLimit, w.stall)
	} else {
		w.timer.Reset(holdLimit)
	}
}

func (w *Conn) stall() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.holds > 0 {
		w.stalled = true
		_ = w.flush() // the next Write says so
	}
}

// Release ends it: what is held leaves, once all have.
func (w *Conn) Release() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.holds--; w.holds > 0 {
		return nil
	}
	w.timer.Stop()
	w.stalled = false
	return w.flush()
}

// flush writes what is held; w.mu is held.
func (w *Conn) flush() error {
	if w.out == nil {
		return w.failed
	}
	if w.failed == nil {
		_, w.failed = w.Conn.Write(w.out[:w.n])
	}
	writeBuffers.Put(w.out)
	w.out, w.n = nil, 0
	return w.failed
}

// Close closes the connection at once: it waits for no writer. What is held is given to the socket if nobody is writing and it has room.
func (w *Conn) Close() error {
	if w.raw != nil && w.mu.TryLock() {
		if w.out != nil && w.failed == nil {
			_ = w.raw.Write(func(fd uintptr) bool {
				_, w.failed = unix.Write(int(fd), w.out[:w.n])
				return true
			})
		}
		if w.failed == nil {
			w.failed = net.ErrClosed
		}
		if w.out != nil {
			writeBuffers.Put(w.out)
			w.out, w.n = nil, 0
		}
		w.mu.Unlock()
	}
	return w.Conn.Close()
}

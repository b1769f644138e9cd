package bastion

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/bastion/wire"
)

// Implementation constants of carrying bytes.
const (
	closeLinger = 10 * time.Second // for what is in flight when the client has closed its channel
	smallBuffer = 4 << 10          // of one direction that waits, or is typed into
	largeBuffer = 32 << 10         // of one that is busy: more at once makes system calls during which the runtime gives the processor away
)

var (
	smallBuffers = sync.Pool{New: func() any { return new([smallBuffer]byte) }}
	largeBuffers = sync.Pool{New: func() any { return new([largeBuffer]byte) }}
)

// carry copies both ways with half-closes. Everything it starts has ended when it returns.
func (v *visit) carry(ctx context.Context, o *opened, channel ssh.Channel, requests <-chan *ssh.Request, conn halfCloser) {
	var copies sync.WaitGroup
	defer copies.Wait()
	defer channel.Close()
	defer conn.Close()

	gone, up, down := make(chan struct{}), make(chan error, 1), make(chan error, 1)
	copies.Go(func() {
		ssh.DiscardRequests(requests) // ends when the client closes its channel, or the connection ends
		close(gone)
	})
	copies.Go(func() { up <- v.copy(conn, channel, &o.up, conn.CloseWrite) })
	copies.Go(func() { down <- v.copy(together{channel, v.wire}, conn, &o.down, channel.CloseWrite) })

	var linger <-chan time.Time
	for up != nil || down != nil {
		select {
		case err := <-up:
			up = nil
			if err != nil {
				o.finish(endTarget, "")
				return
			}
			if linger != nil { // the client has closed, and all that it sent has arrived
				o.finish(endClient, "")
				return
			}
		case err := <-down:
			down = nil
			if errors.Is(err, io.EOF) { // the channel takes no more
				o.finish(endClient, "")
				return
			}
			o.finish(endTarget, "")
			if err != nil {
				return
			}
		case <-gone:
			gone = nil
			if up == nil {
				o.finish(endClient, "")
				return
			}
			linger = time.After(closeLinger)
		case <-linger:
			o.finish(endClient, "")
			return
		case <-ctx.Done():
			o.finish(endClient, "")
			return
		}
	}
}

// halfCloser is a connection whose writing side closes by itself.
type halfCloser interface {
	net.Conn
	CloseWrite() error
}

var _ halfCloser = (*net.TCPConn)(nil)

// copy carries one direction, counts what was written, and closes the writing side at the end of input. It has a large buffer only while
// bytes come faster than a small one takes them.
func (v *visit) copy(to io.Writer, from io.Reader, count *atomic.Int64, closeWrite func() error) error {
	small := smallBuffers.Get().(*[smallBuffer]byte)
	defer smallBuffers.Put(small)
	var large *[largeBuffer]byte
	buffer := small[:]
	defer func() {
		if large != nil {
			largeBuffers.Put(large)
		}
	}()
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			v.active()
			w, err := to.Write(buffer[:n])
			count.Add(int64(w))
			if err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return closeWrite()
		}
		if err != nil {
			return err
		}
		switch {
		case large == nil && n == len(buffer):
			large = largeBuffers.Get().(*[largeBuffer]byte)
			buffer = large[:]
		case large != nil && n < smallBuffer:
			largeBuffers.Put(large)
			large, buffer = nil, small[:]
		}
	}
}

// together writes to a channel so that its packets leave the wire together. The library cuts what is written into packets.
type together struct {
	ssh.Channel
	wire *wire.Conn
}

func (t together) Write(p []byte) (int, error) {
	if len(p) < wire.WorthHolding {
		return t.Channel.Write(p)
	}
	t.wire.Hold()
	n, err := t.Channel.Write(p)
	if t.wire.Release() != nil {
		err = io.EOF // as the channel says it when the connection is lost
	}
	return n, err
}

package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// acceptPause is how long a failing accept (out of descriptors) is let be.
const acceptPause = 100 * time.Millisecond

// Serve answers clients on a unix listener until ctx ends; then it ends their connections, waits for what works for them, and closes the
// listener. A client is served where the kernel says that it is the agent's own user's.
func (a *Agent) Serve(ctx context.Context, l *net.UnixListener) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(errStopped)
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var clients sync.WaitGroup
	defer a.done.Wait()
	defer clients.Wait()
	defer cancel(errStopped)
	places := make(chan struct{}, maxConnections)
	for {
		conn, err := l.AcceptUnix()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accepting: %w", err)
		case err != nil:
			a.log.Warn("accepting a client", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(acceptPause):
			}
			continue
		}
		who, refusal := a.admit(conn)
		if refusal == nil {
			select {
			case places <- struct{}{}:
			default:
				refusal = refuse(ReasonFull, "%d connections are open", maxConnections)
			}
		}
		if refusal != nil {
			a.log.Warn("refused", "reason", refusal.Reason, "error", refusal, "client", who)
			conn.Close()
			continue
		}
		clients.Go(func() {
			defer func() { <-places }()
			a.client(ctx, conn, who)
		})
	}
}

// peer is who is at the other end, as the kernel says.
type peer struct {
	uid, pid int
}

// String shows it in the log.
func (p peer) String() string {
	if p.pid <= 0 {
		return fmt.Sprintf("uid %d", p.uid)
	}
	return fmt.Sprintf("pid %d", p.pid)
}

func (a *Agent) admit(conn *net.UnixConn) (peer, *Refusal) {
	who, err := peerOf(conn)
	if err != nil {
		return who, refuse(ReasonPeer, "asking whose client this is: %w", err)
	}
	if who.uid != a.uid {
		return who, refuse(ReasonPeer, "a client of user %d, this agent is user %d's", who.uid, a.uid)
	}
	return who, nil
}

// client serves one connection to its end.
func (a *Agent) client(ctx context.Context, conn *net.UnixConn, who peer) {
	ctx, cancel := context.WithCancelCause(ctx)
	c := &client{agent: a, who: who}
	for _, socket := range a.config.Chain {
		c.chain = append(c.chain, &chained{socket: socket, via: a.id[:]})
	}
	messages := make(chan []byte, maxQueued)
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(messages)
		cancel(c.read(ctx, conn, messages))
	})
	for message := range messages {
		if ctx.Err() != nil {
			break // nobody waits for the answer
		}
		reply := c.handle(ctx, message)
		if err := conn.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
			break
		}
		if err := writeMessage(conn, reply); err != nil {
			break
		}
	}
	cancel(errClientGone)
	conn.Close()
	reading.Wait()
	for _, chain := range c.chain {
		chain.close()
	}
}

// read takes messages off the connection as they come, so that a client that goes away while it waits is seen to. It returns why it ended.
func (c *client) read(ctx context.Context, conn *net.UnixConn, messages chan<- []byte) error {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	for {
		if err := conn.SetReadDeadline(time.Time{}); err != nil {
			return errClientGone
		}
		message, err := readMessage(conn, func() error { return conn.SetReadDeadline(time.Now().Add(messageTime)) })
		if err != nil {
			var long tooLong
			switch {
			case errors.As(err, &long):
				c.refused(refuse(ReasonTooLong, "%w", err), "")
			case errors.Is(err, net.ErrClosed) || ctx.Err() != nil:
			case err.Error() != "EOF":
				c.refused(refuse(ReasonMalformed, "reading a message: %w", err), "")
			}
			return errClientGone
		}
		select {
		case messages <- message:
		case <-ctx.Done():
			return errClientGone
		}
	}
}

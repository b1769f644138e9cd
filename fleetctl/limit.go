package main

import (
	"net"
	"sync/atomic"
)

// limit bounds the connections that are open at once; further ones wait in the kernel's queue.
func limit(l net.Listener, n int) net.Listener {
	return &limited{l, make(chan struct{}, n)}
}

type limited struct {
	net.Listener
	slots chan struct{}
}

func (l *limited) Accept() (net.Conn, error) {
	l.slots <- struct{}{}
	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &limitedConn{Conn: conn, slots: l.slots}, nil
}

type limitedConn struct {
	net.Conn
	slots  chan struct{}
	closed atomic.Bool
}

func (c *limitedConn) Close() error {
	if c.closed.CompareAndSwap(false, true) {
		defer func() { <-c.slots }()
	}
	return c.Conn.Close()
}

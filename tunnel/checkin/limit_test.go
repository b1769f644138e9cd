package checkin

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// fakeListener hands out connections from the addresses it is given.
type fakeListener struct {
	net.Listener
	from chan netip.Addr
}

func (f *fakeListener) Accept() (net.Conn, error) {
	a, ok := <-f.from
	if !ok {
		return nil, net.ErrClosed
	}
	return &fakeConn{from: net.TCPAddrFromAddrPort(netip.AddrPortFrom(a, 1))}, nil
}

type fakeConn struct {
	net.Conn
	from net.Addr
}

func (f *fakeConn) RemoteAddr() net.Addr { return f.from }
func (f *fakeConn) Close() error         { return nil }

// TestSourceIsBounded opens what one source may have: it gets no more, another source does, and a closed one gives its place back.
func TestSourceIsBounded(t *testing.T) {
	f := &fakeListener{from: make(chan netip.Addr, MaxConnections)}
	l := Limit(f)
	a, neighbour, other := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2"), netip.MustParseAddr("::ffff:192.0.2.1")
	accept := func() net.Conn {
		t.Helper()
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	var open []net.Conn
	for range MaxConnectionsPerSource {
		f.from <- a
		open = append(open, accept())
	}
	f.from <- neighbour // of the same /64: closed, and the next is accepted
	f.from <- other
	c := accept()
	if got := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr(); got != other {
		t.Errorf("accepted %s, want %s: one source has more than its connections", got, other)
	}
	if err := open[0].Close(); err != nil {
		t.Fatal(err)
	}
	f.from <- neighbour
	open = append(open[1:], c, accept())
	for _, c := range open {
		for range 2 { // closing twice gives one place back
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if in := l.(*limited); len(in.open) != 0 || len(in.slots) != 0 {
		t.Errorf("%d sources and %d places are still taken", len(in.open), len(in.slots))
	}
	close(f.from)
	if _, err := l.Accept(); err == nil {
		t.Error("accepted from a closed listener")
	}
}

// TestListIsKept reads the list's file once, and again when it was replaced.
func TestListIsKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "list.json")
	l := &served{path: path}
	replace := func(text string) {
		t.Helper()
		if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path+".new", now, now); err != nil { // the same size at the same time: the file is another
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	read := func() []byte {
		t.Helper()
		body, err := l.body()
		if err != nil {
			t.Fatal(err)
		}
		return body
	}
	replace("one")
	first, second := read(), read()
	if string(first) != "one" || &first[0] != &second[0] {
		t.Errorf("got %q and %q: the file is read for each request", first, second)
	}
	replace("two")
	if got := read(); string(got) != "two" {
		t.Errorf("got %q after a change, want two", got)
	}
	if err := os.Chtimes(path, now, now.Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if got := read(); string(got) != "two" {
		t.Errorf("got %q, want two", got)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if body, err := l.body(); err == nil {
		t.Errorf("got %q from a file that is gone", body)
	}
}

package wire

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"runtime"
	"testing"
	"time"
)

// patience bounds how long a test waits for something that must happen.
const patience = 20 * time.Second

// tcpPair is a wire and its other end.
func tcpPair(t testing.TB) (*Conn, *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	far, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	near, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	w := New(near)
	t.Cleanup(func() { w.Close(); far.Close() })
	if err := errors.Join(far.SetDeadline(time.Now().Add(patience)), near.SetDeadline(time.Now().Add(patience))); err != nil {
		t.Fatal(err)
	}
	return w, far.(*net.TCPConn)
}

func randomBytes(t testing.TB, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestReadsEverythingInAnyPieces(t *testing.T) {
	w, far := tcpPair(t)
	want := randomBytes(t, 3*readSize+17)
	go func() {
		far.Write(want)
		far.CloseWrite()
	}()
	var got []byte
	for size := 1; ; size = size*3%40000 + 1 {
		p := make([]byte, size)
		n, err := w.Read(p)
		got = append(got, p[:n]...)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil || n == 0 {
			t.Fatalf("read %d bytes: %v", n, err)
		}
	}
	if !bytes.Equal(got, want) {
		t.Errorf("got %d bytes, want %d, or others", len(got), len(want))
	}
	if w.in != nil {
		t.Error("a buffer is kept with nothing in it")
	}
}

// TestKeepsDeadline: the handshake's deadline must reach a read that does not go through net.Conn.
func TestKeepsDeadline(t *testing.T) {
	w, _ := tcpPair(t)
	if err := w.SetDeadline(time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	var timeout net.Error
	if _, err := w.Read(make([]byte, 1)); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("got %v, want a timeout", err)
	}
}

func TestReadEndsWithClose(t *testing.T) {
	w, _ := tcpPair(t)
	done := make(chan error, 1)
	go func() {
		_, err := w.Read(make([]byte, 1))
		done <- err
	}()
	w.Close()
	if err := <-done; err == nil || errors.Is(err, io.EOF) {
		t.Errorf("got %v, want an error other than EOF", err)
	}
}

// TestWithoutSocket: what is not a socket is read and written as it is.
func TestWithoutSocket(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	w := New(near)
	defer w.Close()
	go far.Write([]byte("hello"))
	p := make([]byte, 8)
	if n, err := w.Read(p); err != nil || string(p[:n]) != "hello" {
		t.Errorf("read %q, %v", p[:n], err)
	}
}

func TestHoldsUntilRelease(t *testing.T) {
	w, far := tcpPair(t)
	want := randomBytes(t, writeSize+2*writeSize/3) // more than is held at most
	w.Hold()
	w.Hold()
	go func() {
		for rest := want; len(rest) > 0; {
			n := min(len(rest), 32<<10)
			if _, err := w.Write(rest[:n]); err != nil {
				t.Error(err)
				return
			}
			rest = rest[n:]
		}
		if err := errors.Join(w.Release(), w.Release()); err != nil {
			t.Error(err)
		}
	}()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(far, got); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%v, or other bytes", err)
	}
}

// TestHoldIsShort: a writer who holds and then waits, as for a channel's window, keeps nothing from the peer.
func TestHoldIsShort(t *testing.T) {
	w, far := tcpPair(t)
	w.Hold()
	for _, part := range []string{"first", "after the hold went stale"} {
		if _, err := w.Write([]byte(part)); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(part))
		if _, err := io.ReadFull(far, got); err != nil || string(got) != part {
			t.Fatalf("%q, %v", got, err)
		}
	}
	if err := w.Release(); err != nil {
		t.Fatal(err)
	}
}

// TestClosesUnderBlockedWriter: a peer that reads nothing cannot keep the connection open.
func TestClosesUnderBlockedWriter(t *testing.T) {
	w, _ := tcpPair(t)
	blocked := make(chan error, 1)
	go func() {
		for {
			if _, err := w.Write(make([]byte, 1<<20)); err != nil {
				blocked <- err
				return
			}
		}
	}()
	for !w.isWriting() {
		runtime.Gosched()
	}
	w.Close()
	if err := <-blocked; err == nil {
		t.Error("the writer was told nothing")
	}
	w.Hold()
	if _, err := w.Write([]byte("x")); err == nil && w.Release() == nil {
		t.Error("written to a closed connection")
	}
}

func (w *Conn) isWriting() bool {
	if w.mu.TryLock() {
		w.mu.Unlock()
		return false
	}
	return true
}

// TestFailureIsSticky: bytes that could not be written later fail what comes after them.
func TestFailureIsSticky(t *testing.T) {
	w, _ := tcpPair(t)
	w.Hold()
	if _, err := w.Write([]byte("held")); err != nil {
		t.Fatal(err)
	}
	w.Conn.Close()
	if err := w.Release(); err == nil {
		t.Fatal("released to a closed connection")
	}
	if _, err := w.Write([]byte("x")); err == nil {
		t.Error("written after a failure")
	}
}

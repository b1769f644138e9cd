package bastion

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"mayfly/testenv/softkey"
)

// tcpPair is a wire and its other end.
func tcpPair(t testing.TB) (*wire, *net.TCPConn) {
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
	w := newWire(near)
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

func TestWireReadsEverythingInAnyPieces(t *testing.T) {
	w, far := tcpPair(t)
	want := randomBytes(t, 3*wireRead+17)
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

// TestWireKeepsDeadline: the handshake's deadline must reach a read that does not go through net.Conn.
func TestWireKeepsDeadline(t *testing.T) {
	w, _ := tcpPair(t)
	if err := w.SetDeadline(time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	var timeout net.Error
	if _, err := w.Read(make([]byte, 1)); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("got %v, want a timeout", err)
	}
}

func TestWireReadEndsWithClose(t *testing.T) {
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

// TestWireWithoutSocket: what is not a socket is read and written as it is.
func TestWireWithoutSocket(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	w := newWire(near)
	defer w.Close()
	go far.Write([]byte("hello"))
	p := make([]byte, 8)
	if n, err := w.Read(p); err != nil || string(p[:n]) != "hello" {
		t.Errorf("read %q, %v", p[:n], err)
	}
}

func TestWireHoldsUntilRelease(t *testing.T) {
	w, far := tcpPair(t)
	want := randomBytes(t, wireWrite+2*wireWrite/3) // more than is held at most
	w.hold()
	w.hold()
	go func() {
		for rest := want; len(rest) > 0; {
			n := min(len(rest), 32<<10)
			if _, err := w.Write(rest[:n]); err != nil {
				t.Error(err)
				return
			}
			rest = rest[n:]
		}
		if err := errors.Join(w.release(), w.release()); err != nil {
			t.Error(err)
		}
	}()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(far, got); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%v, or other bytes", err)
	}
}

// TestWireHoldIsShort: a writer who holds and then waits, as for a channel's window, keeps nothing from the peer.
func TestWireHoldIsShort(t *testing.T) {
	w, far := tcpPair(t)
	w.hold()
	for _, part := range []string{"first", "after the hold went stale"} {
		if _, err := w.Write([]byte(part)); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(part))
		if _, err := io.ReadFull(far, got); err != nil || string(got) != part {
			t.Fatalf("%q, %v", got, err)
		}
	}
	if err := w.release(); err != nil {
		t.Fatal(err)
	}
}

// TestWireClosesUnderBlockedWriter: a peer that reads nothing cannot keep the connection open.
func TestWireClosesUnderBlockedWriter(t *testing.T) {
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
	w.hold()
	if _, err := w.Write([]byte("x")); err == nil && w.release() == nil {
		t.Error("written to a closed connection")
	}
}

func (w *wire) isWriting() bool {
	if w.mu.TryLock() {
		w.mu.Unlock()
		return false
	}
	return true
}

// TestWireFailureIsSticky: bytes that could not be written later fail what comes after them.
func TestWireFailureIsSticky(t *testing.T) {
	w, _ := tcpPair(t)
	w.hold()
	if _, err := w.Write([]byte("held")); err != nil {
		t.Fatal(err)
	}
	w.Conn.Close()
	if err := w.release(); err == nil {
		t.Fatal("released to a closed connection")
	}
	if _, err := w.Write([]byte("x")); err == nil {
		t.Error("written after a failure")
	}
}

// TestCarryCountsExactly moves an odd number of bytes each way at once, closes one half after the other, and compares the record.
func TestCarryCountsExactly(t *testing.T) {
	f := newFixture(t)
	up, down := randomBytes(t, 5<<20+1), randomBytes(t, 3<<20+7)
	arrived := make(chan []byte, 1)
	f.target("10.77.0.11:22", func(conn *net.TCPConn) {
		var both sync.WaitGroup
		both.Go(func() {
			conn.Write(down)
			conn.CloseWrite()
		})
		got, _ := io.ReadAll(conn)
		both.Wait()
		arrived <- got
	})
	f.start()
	client := f.login("anna", f.anna.Signer(softkey.Always))
	channel, err := client.Dial("tcp", "se-1:22")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		channel.Write(up)
		channel.(interface{ CloseWrite() error }).CloseWrite()
	}()
	got, err := io.ReadAll(channel)
	if err != nil || !bytes.Equal(got, down) {
		t.Fatalf("%d bytes came back, want %d, %v", len(got), len(down), err)
	}
	if got := <-arrived; !bytes.Equal(got, up) {
		t.Fatalf("%d bytes arrived, want %d", len(got), len(up))
	}
	channel.Close()
	client.Close()
	r := f.closing()
	if r.Up != int64(len(up)) || r.Down != int64(len(down)) || len(r.Targets) != 1 || r.Targets[0].Up != r.Up {
		t.Errorf("record: %d up and %d down, want %d and %d", r.Up, r.Down, len(up), len(down))
	}
}

// TestSlowReaderIsBounded: a client that opens a channel and reads nothing makes the bastion take no more from the server than its
// window and its buffers.
func TestSlowReaderIsBounded(t *testing.T) {
	f := newFixture(t)
	const offered = 64 << 20
	stuck := make(chan int, 1)
	f.target("10.77.0.11:22", func(conn *net.TCPConn) {
		sent, piece := 0, make([]byte, 64<<10)
		for sent < offered {
			if conn.SetWriteDeadline(time.Now().Add(time.Second)) != nil {
				break
			}
			n, err := conn.Write(piece)
			sent += n
			if err != nil {
				break
			}
		}
		stuck <- sent
	})
	f.start()
	client := f.login("anna", f.anna.Signer(softkey.Always))
	channel, err := client.Dial("tcp", "se-1:22")
	if err != nil {
		t.Fatal(err)
	}
	defer channel.Close()
	if sent := <-stuck; sent >= offered/2 {
		t.Errorf("the bastion took %d MiB for a client that reads nothing", sent>>20)
	}
	// Another channel of the same connection is not held up.
	f.target("10.77.0.12:22", echo)
	other, err := client.Dial("tcp", "se-2:22")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	got := make([]byte, 4)
	if _, err := other.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(other, got); err != nil || string(got) != "ping" {
		t.Errorf("the other channel: %q, %v", got, err)
	}
}

// TestCutDuringTransfer ends the session while bytes move both ways: everything ends, with one record.
func TestCutDuringTransfer(t *testing.T) {
	f := newFixture(t)
	f.target("10.77.0.11:22", func(conn *net.TCPConn) {
		go io.Copy(io.Discard, conn)
		for piece := make([]byte, 64<<10); ; {
			if _, err := conn.Write(piece); err != nil {
				return
			}
		}
	})
	f.start()
	client := f.login("anna", f.anna.Signer(softkey.Always))
	channel, err := client.Dial("tcp", "se-1:22")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for piece := make([]byte, 64<<10); ; {
			if _, err := channel.Write(piece); err != nil {
				return
			}
		}
	}()
	if _, err := io.CopyN(io.Discard, channel, 8<<20); err != nil {
		t.Fatal(err)
	}
	go io.Copy(io.Discard, channel)
	for v := range f.server.sessions.list() {
		v.cut(endPolicy, "test")
	}
	r := f.closing()
	if r.Ended != endPolicy || len(r.Targets) != 1 || r.Targets[0].Ended != endPolicy || r.Down < 8<<20 || r.Up == 0 {
		t.Errorf("record: %+v", r)
	}
}

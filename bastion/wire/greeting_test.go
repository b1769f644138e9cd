package wire

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestGreetsInOneSegment: what a handshake writes between two waits of its reader arrives together, and nothing is held while the reader
// waits, or once the handshake is over.
func TestGreetsInOneSegment(t *testing.T) {
	w, far := tcpPair(t)
	w.Greets()
	one := make([]byte, 1)
	say := func(text string) {
		t.Helper()
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	hear := func(text string) {
		t.Helper()
		got := make([]byte, len(text))
		if _, err := io.ReadFull(far, got); err != nil || string(got) != text {
			t.Fatalf("got %q, %v, want %q", got, err, text)
		}
	}
	read := make(chan error)
	wait := func() { _, err := w.Read(one); read <- err }

	say("reply")
	say("new keys")
	if n := arrived(t, far); n != 0 {
		t.Fatalf("%d bytes left before the reader waited", n)
	}
	go wait()
	hear("replynew keys")
	say("while it waits")
	hear("while it waits")
	if _, err := far.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := <-read; err != nil {
		t.Fatal(err)
	}
	say("success")
	if err := w.Greeted(); err != nil {
		t.Fatal(err)
	}
	hear("success")
	say("after")
	hear("after")
	if w.out != nil {
		t.Error("a buffer is kept with nothing in it")
	}
}

// arrived is how many bytes a socket has and nobody has read.
func arrived(t *testing.T, conn *net.TCPConn) (n int) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if cerr := raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.TIOCINQ) }); errors.Join(cerr, err) != nil {
		t.Fatal(cerr, err)
	}
	return n
}

// TestGreetingEndsWithRefusal: the last word of a handshake that fails reaches the client though nobody waits for an answer.
func TestGreetingEndsWithRefusal(t *testing.T) {
	w, far := tcpPair(t)
	w.Greets()
	if _, err := w.Write([]byte("refused")); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if got, err := io.ReadAll(far); err != nil || string(got) != "refused" {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestGreetingHoldsNothingAfterTheEnd: a client that has closed its half, or whose deadline has passed, is no reason to hold.
func TestGreetingHoldsNothingAfterTheEnd(t *testing.T) {
	for name, end := range map[string]func(*Conn, *net.TCPConn) error{
		"half closed": func(_ *Conn, far *net.TCPConn) error { return far.CloseWrite() },
		"deadline":    func(w *Conn, _ *net.TCPConn) error { return w.SetReadDeadline(time.Now().Add(20 * time.Millisecond)) },
	} {
		t.Run(name, func(t *testing.T) {
			w, far := tcpPair(t)
			w.Greets()
			if err := end(w, far); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Read(make([]byte, 1)); err == nil || errors.Is(err, syscall.EAGAIN) {
				t.Fatalf("read: %v", err)
			}
			if _, err := w.Write([]byte("last")); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 4)
			if _, err := io.ReadFull(far, got); err != nil || string(got) != "last" {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

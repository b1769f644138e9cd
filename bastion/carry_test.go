package bastion

import (
	"bytes"
	"crypto/rand"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"mayfly/testenv/softkey"
)

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

func randomBytes(t testing.TB, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return b
}

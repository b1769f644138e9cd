package main

import (
	"io"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mayfly/rebuild/join"
)

const acceptedLine = "Accepted publickey for ana from 10.77.0.2 port 40123 ssh2: ED25519-SK SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU"

// TestLoginReports: of all that sshd says, a login alone is kept, until the controller has it.
func TestLoginReports(t *testing.T) {
	woken := 0
	l := &loginReports{now: func() time.Time { return testNow }, wake: func() { woken++ }}
	l.take(io.NopCloser(strings.NewReader("Server listening on 10.77.0.11 port 22.\r\n" +
		"Connection from user x\r\n" + strings.Repeat("y", 100_000) + acceptedLine + "\r\n" +
		acceptedLine + "\r\nDisconnected from user ana 10.77.0.2 port 40123\r\nAccepted something\x1b[2J else\r\n" + acceptedLine)))
	got := l.after(0)
	if len(got) != 3 || woken != 3 {
		t.Fatalf("kept %+v, woken %d times", got, woken)
	}
	for i, r := range got {
		if r.Number != uint64(i+1) || r.Check() != nil {
			t.Errorf("login %d: %+v, %v", i, r, r.Check())
		}
	}
	if r := got[0]; r.User != "ana" || r.Peer.String() != "10.77.0.2:40123" || !strings.HasPrefix(r.Key, "SHA256:") || !r.Time.Equal(testNow) {
		t.Errorf("got %+v", r)
	}
	if r := got[1]; r.User != "" || r.Unread != "Accepted something [2J else" {
		t.Errorf("a line that cannot be read: %+v", r)
	}
	if rest := l.after(2); len(rest) != 1 || rest[0].Number != 3 {
		t.Errorf("after 2: %+v", rest)
	}
	l.kept(2)
	if rest := l.after(0); len(rest) != 1 || rest[0].Number != 3 {
		t.Errorf("once 2 are kept: %+v", rest)
	}
	l.kept(9)
	for range join.MaxLogins + 5 {
		l.line(acceptedLine)
	}
	if n := len(l.after(0)); n != join.MaxLogins {
		t.Errorf("holds %d", n)
	}
	l.kept(l.number)
	l.line(acceptedLine)
	if rest := l.after(0); len(rest) != 1 || rest[0].Missed != 5 {
		t.Errorf("after what did not fit: %+v", rest)
	}
}

// TestServiceIsRead: what a service says on stderr has one reader, which sees its end; what it says on stdout has none.
func TestServiceIsRead(t *testing.T) {
	r, err := newReaper(false)
	if err != nil {
		t.Fatal(err)
	}
	said := make(chan string, 1)
	p, err := r.start(spec{name: "x", path: "/bin/sh", args: []string{"-c", "echo out; echo error >&2; read x || echo end >&2"}, said: func(r io.ReadCloser) {
		data, err := io.ReadAll(r)
		if err != nil || r.Close() != nil {
			t.Errorf("reading: %v", err)
		}
		said <- string(data)
	}})
	if err != nil {
		t.Fatal(err)
	}
	if got := <-said; got != "error\nend\n" {
		t.Errorf("it said %q", got)
	}
	var status unix.WaitStatus
	if _, err := unix.Wait4(p.pid, &status, 0, nil); err != nil || status.ExitStatus() != 0 {
		t.Errorf("status %v, %v", status, err)
	}
	// One that cannot be started leaves no reader waiting.
	if _, err := r.start(spec{path: "/nonexistent", said: func(r io.ReadCloser) {
		data, _ := io.ReadAll(r)
		said <- string(data)
	}}); err == nil {
		t.Error("it started")
	}
	if got := <-said; got != "" {
		t.Errorf("it said %q", got)
	}
}

package pcscd

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"mayfly/testenv/debian"
	"mayfly/testenv/netlab"
)

// patience is for what must happen.
const patience = 60 * time.Second

// place is a directory with a path short enough for a socket: that of t.TempDir has the test's name in it.
func place(t *testing.T, readers int) Place {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes namespaces")
	}
	if missing := debian.Missing(Needs); len(missing) > 0 {
		t.Skipf("needs %s", debian.Describe(missing))
	}
	dir, err := os.MkdirTemp("", "pcscd-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return Place{Dir: dir, Readers: readers}
}

func start(t *testing.T, p Place, network Network) (*Daemon, context.Context) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	d, err := Start(ctx, p, network)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d, ctx
}

var testATR = []byte{0x3b, 0x80, 0x80, 0x01, 0x01} // T=0 and T=1, no historical bytes

// play is a card that answers everything with "instruction not supported", until conn closes.
func play(conn net.Conn) error {
	for {
		var size [2]byte
		if _, err := io.ReadFull(conn, size[:]); err != nil {
			return err
		}
		message := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(conn, message); err != nil {
			return err
		}
		answer := []byte{0x6d, 0x00}
		if len(message) == 1 { // vpcd's own
			if message[0] != 4 {
				continue // power off, on, reset: no answer
			}
			answer = testATR
		}
		if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)); err != nil {
			return err
		}
	}
}

// TestCardIsSeen plugs a card into each of three readers, sees the daemon notice, pulls one, and ends the daemon.
func TestCardIsSeen(t *testing.T) {
	d, ctx := start(t, place(t, 3), nil)
	conns := make([]net.Conn, d.Readers)
	for reader := range d.Readers {
		conn, err := d.Dial(ctx, reader)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conns[reader] = conn
		go play(conn)
		if err := d.AwaitCard(ctx, reader); err != nil {
			t.Fatal(err)
		}
	}
	states, err := d.States(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for reader := range d.Readers {
		if s := states[reader]; s.Name != d.Reader(reader) || !s.Present || !bytes.Equal(s.ATR, testATR) {
			t.Errorf("reader %d: got %+v, want %s with the card's ATR", reader, s, d.Reader(reader))
		}
	}
	before, err := d.State(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	conns[1].Close()
	if err := d.AwaitRemoval(ctx, 1, before); err != nil {
		t.Fatal(err)
	}
	for _, reader := range []int{0, 2} {
		if s, err := d.State(ctx, reader); err != nil || !s.Present {
			t.Errorf("the card that stays in reader %d: got %+v, %v", reader, s, err)
		}
	}
	pid := d.PID()
	if err := errors.Join(d.Close(), d.Close()); err != nil {
		t.Error(err)
	}
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d after Close: got %v, want none", pid, err)
	}
	if _, err := d.States(ctx); err == nil {
		t.Error("the socket answers after Close")
	}
}

// TestMachineIsUntouched holds that the machine's own socket, network and mounts are as they were.
func TestMachineIsUntouched(t *testing.T) {
	p := place(t, 1)
	listed := func() string {
		entries, err := os.ReadDir("/run/pcscd")
		mounts, mountsErr := os.ReadFile("/proc/self/mountinfo")
		if mountsErr != nil {
			t.Fatal(mountsErr)
		}
		return fmt.Sprint(entries, err, strings.Contains(string(mounts), p.Dir), strings.Contains(string(mounts), "/usr/lib/pcsc"))
	}
	before := listed()
	d, ctx := start(t, p, nil)
	if got := listed(); got != before {
		t.Errorf("while it runs: got %s, want %s as before", got, before)
	}
	for _, address := range []string{fmt.Sprintf("127.0.0.1:%d", d.Port(0)), fmt.Sprintf("[::1]:%d", d.Port(0))} {
		if conn, err := new(net.Dialer).DialContext(ctx, "tcp", address); err == nil {
			conn.Close()
			t.Errorf("%s answers outside the daemon's namespace", address)
		}
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if got := listed(); got != before {
		t.Errorf("after it: got %s, want %s as before", got, before)
	}
}

// TestInLab runs it in a namespace of the lab, with the card in another process's place: on the port.
func TestInLab(t *testing.T) {
	p := place(t, 1)
	lab := netlab.Of(p.Dir)
	if err := lab.Create(nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Remove(); err != nil {
			t.Error(err)
		}
	})
	d, ctx := start(t, p, lab.Client)
	conn, err := d.Dial(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go play(conn)
	if err := d.AwaitCard(ctx, 0); err != nil {
		t.Error(err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// TestStartsAgain starts in the directory of a daemon that was killed, whose files are all there.
func TestStartsAgain(t *testing.T) {
	p := place(t, 1)
	d, _ := start(t, p, nil)
	if err := syscall.Kill(d.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-d.Done()
	if _, err := os.Stat(filepath.Join(p.Dir, "run", "pcscd.pid")); err != nil {
		t.Errorf("a killed daemon left no file, so this proves nothing: %v", err)
	}
	start(t, p, nil)
}

// TestBusyCard ends a daemon that waits for a card which never answers.
func TestBusyCard(t *testing.T) {
	d, ctx := start(t, place(t, 1), nil)
	conn, err := d.Dial(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.ReadFull(conn, make([]byte, 3)); err != nil { // vpcd has asked for the ATR
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	select {
	case <-d.Done():
	default:
		t.Error("it runs after Close")
	}
}

// TestStartSaysWhy: what keeps the daemon from running is in the error.
func TestStartSaysWhy(t *testing.T) {
	p := place(t, 1)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd, err := p.Prepare()
	if err != nil {
		t.Fatal(err)
	}
	private, err := netlab.NewPrivate()
	if err != nil {
		t.Fatal(err)
	}
	defer private.Close()
	cmd.Args[2] = "echo the moon is full >&2; exit 4"
	d := &Daemon{Place: p, network: private, done: make(chan struct{})}
	err = d.run(ctx, cmd)
	if err == nil || !strings.Contains(err.Error(), "the moon is full") || !strings.Contains(err.Error(), "exit status 4") {
		t.Errorf("got %v, want its last words and its status", err)
	}
}

func TestPlaces(t *testing.T) {
	for _, tt := range []struct {
		place Place
		want  string
	}{
		{Place{Dir: "relative", Readers: 1}, "absolute"},
		{Place{Dir: "/run/x", Readers: 1}, "not below /run"},
		{Place{Dir: "/" + strings.Repeat("x", 200), Readers: 1}, "107 is all there is"},
		{Place{Dir: "/tmp/x"}, "want 1 to 16"},
		{Place{Dir: "/tmp/x", Readers: 17}, "want 1 to 16"},
	} {
		if _, err := tt.place.Prepare(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: got %v, want %q", tt.place, err, tt.want)
		}
	}
}

func TestEnviron(t *testing.T) {
	p := Place{Dir: "/x", Readers: 1}
	got := p.Environ([]string{"A=1", socketVariable + "=/run/pcscd/pcscd.comm"})
	if want := "[A=1 PCSCLITE_CSOCK_NAME=/x/run/pcscd.comm]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

func TestParseStates(t *testing.T) {
	table := make([]byte, maxReaders*stateSize)
	copy(table, "first")
	entry := table[2*stateSize:]
	copy(entry, "third")
	binary.NativeEndian.PutUint32(entry[128:], 7)
	binary.NativeEndian.PutUint32(entry[132:], statePresent|0x10)
	copy(entry[140:], testATR)
	binary.NativeEndian.PutUint32(entry[176:], uint32(len(testATR)))
	got, err := parseStates(table)
	want := fmt.Sprint([]State{{Name: "first", ATR: []byte{}}, {Name: "third", Present: true, Events: 7, ATR: testATR}})
	if err != nil || fmt.Sprint(got) != want {
		t.Errorf("got %v, %v, want %s", got, err, want)
	}
	for name, spoil := range map[string]func([]byte) []byte{
		"short":    func(b []byte) []byte { return b[:len(b)-1] },
		"long ATR": func(b []byte) []byte { binary.NativeEndian.PutUint32(b[176:], 34); return b },
		"no end":   func(b []byte) []byte { copy(b, strings.Repeat("x", 128)); return b },
	} {
		if got, err := parseStates(spoil(bytes.Clone(table))); err == nil {
			t.Errorf("%s: got %v, want an error", name, got)
		}
	}
}

package audit

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// victim names the log that this program, run again, writes until it is killed.
const victim = "MAYFLY_AUDIT_VICTIM"

func TestMain(m *testing.M) {
	if dir := os.Getenv(victim); dir != "" {
		fmt.Fprintln(os.Stderr, appendForever(dir))
		os.Exit(1)
	}
	if dir := os.Getenv(fullDisk); dir != "" {
		if err := fillDisk(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// appendForever says of each record, once it is durable, which one it was.
func appendForever(dir string) error {
	l, err := Open(Options{Dir: dir, Name: "lab/test", Reserve: 1})
	if err != nil {
		return err
	}
	failed := make(chan error)
	var mu sync.Mutex
	pid := os.Getpid()
	for i := range 4 {
		go func() {
			for n := 0; ; n++ {
				id := fmt.Sprintf("%d-%d-%d", pid, i, n)
				if err := l.Append("connection", map[string]string{"id": id, "more": strings.Repeat("x", n%700)}); err != nil {
					failed <- err
				}
				mu.Lock()
				fmt.Println(id)
				mu.Unlock()
			}
		}()
	}
	return <-failed
}

// TestKilled kills a process that writes, again and again, and finds every record that it had been told was durable.
func TestKilled(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	var told []string
	for range 6 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), victim+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(out)
		for i, kill := 0, 50+rand.IntN(1000); ; i++ {
			if i == kill {
				if err := cmd.Process.Kill(); err != nil {
					t.Error(err)
				}
			}
			line, err := lines.ReadString('\n') // what it said before it died is read to the end
			if err != nil {
				break
			}
			told = append(told, strings.TrimSpace(line))
		}
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("got %v, want killed", err)
		}
		if _, err := Verify(dir, Trusted{Log: verifier(t, dir)}); err != nil {
			t.Errorf("before anybody mended anything: %v", err)
		}
	}
	closeLog(t, openAt(t, dir))
	report := verify(t, dir, uint64(len(texts(t, dir))))
	kept := map[string]int{}
	for _, text := range texts(t, dir) {
		if _, rest, ok := strings.Cut(text, `"id":"`); ok {
			id, _, _ := strings.Cut(rest, `"`)
			kept[id]++
		}
	}
	for _, id := range told {
		if kept[id] != 1 {
			t.Errorf("record %s was said to be durable and is there %d times", id, kept[id])
		}
	}
	t.Logf("%d records were said to be durable, %d are in the log", len(told), report.Size)
}

// abandon leaves a log as a crash would: the journal is durable, nothing else happened since.
func abandon(t *testing.T, l *Log) {
	t.Helper()
	l.pub.stop <- struct{}{} // only the publisher is stopped, and it publishes no more
	l.stopped.Wait()
	for _, c := range []io.Closer{l.segment.file, l.lock} {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTorn leaves pieces of frames at the end of the journal.
func TestTorn(t *testing.T) {
	frame := appendFrame(nil, []byte(`{"a frame that was never whole"}`))
	wrong := bytes.Clone(frame)
	wrong[len(wrong)-1] ^= 1
	long := appendFrame(nil, bytes.Repeat([]byte("x"), MaxEntry))
	for _, piece := range [][]byte{frame[:1], frame[:frameHeader], frame[:len(frame)-1], wrong, append(bytes.Clone(wrong), frame...),
		bytes.Repeat([]byte{0}, 100)[:7], bytes.Repeat([]byte{0xff}, 5000), long[:len(long)-1]} {
		dir := filepath.Join(t.TempDir(), "log")
		write(t, dir, 5)
		l := openAt(t, dir)
		for i := range 3 {
			if err := l.Append("late", i); err != nil {
				t.Fatal(err)
			}
		}
		abandon(t, l)
		path := segmentPath(dir, 5)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, append(data, piece...), 0o600); err != nil {
			t.Fatal(err)
		}
		closeLog(t, openAt(t, dir))
		verify(t, dir, 9)
		all := texts(t, dir)
		last := all[len(all)-1]
		if !strings.Contains(last, EventTorn) || !strings.Contains(last, fmt.Sprintf(`"bytes":%d,`, len(piece))) || !strings.Contains(last, hash(piece)) {
			t.Errorf("piece of %d: no record of it in %q", len(piece), last)
		}
		closeLog(t, openAt(t, dir)) // once
		verify(t, dir, 9)
	}
}

// TestDamaged has bits turn in the middle of the journal: the frames behind are taken up, and a record says what was lost.
func TestDamaged(t *testing.T) {
	for name, at := range map[string]int{"length": 2, "longer": 3, "checksum": 5, "entry": frameHeader + 20} {
		dir := filepath.Join(t.TempDir(), "log")
		write(t, dir, 5)
		l := openAt(t, dir)
		for i := range 6 {
			if err := l.Append("late", i); err != nil {
				t.Fatal(err)
			}
		}
		abandon(t, l)
		path := segmentPath(dir, 5)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		frame := len(data) / 6
		var lost []byte
		for _, n := range []int{1, 3} {
			data[n*frame+at] ^= 1
			lost = append(lost, data[n*frame:(n+1)*frame]...)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		again := openAt(t, dir)
		abandon(t, again) // before the next start, what the first one made of it is there
		closeLog(t, openAt(t, dir))
		verify(t, dir, 10)
		all := texts(t, dir)
		got := strings.Join(all[5:], "\n")
		for i := range 6 {
			if want := i != 1 && i != 3; strings.Contains(got, fmt.Sprintf(`"record":%d}`, i)) != want {
				t.Errorf("%s: record %d in the log is %t in:\n%s", name, i, !want, got)
			}
		}
		if !strings.Contains(all[9], EventTorn) || !strings.Contains(all[9], fmt.Sprintf(`"bytes":%d,`, len(lost))) || !strings.Contains(all[9], hash(lost)) {
			t.Errorf("%s: %d bytes were lost: %s", name, len(lost), all[9])
		}
	}
}

// TestDurable: what Append has returned from was put on disk, all of it, and a disk that says it does not have it ends the log.
func TestDurable(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	l := openAt(t, dir)
	real, broken := fdatasync, false
	defer func() { fdatasync = real }()
	var durable int64
	fdatasync = func(fd int) error {
		if broken {
			return unix.EIO
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
		durable = st.Size
		return real(fd)
	}
	for i, write := range []func(string, any) error{l.Append, l.AppendOpening, l.Append} {
		if err := write("login", i); err != nil {
			t.Fatal(err)
		}
		if info, err := l.segment.file.Stat(); err != nil || durable != info.Size() || durable == 0 {
			t.Errorf("record %d: %d bytes were durable when it returned, want %d, %v", i, durable, info.Size(), err)
		}
	}
	broken = true
	if err := l.AppendOpening("login", 3); !errors.Is(err, unix.EIO) {
		t.Errorf("a disk that does not have it: got %v", err)
	}
	broken = false
	if err := l.Append("login", 4); err == nil || l.Healthy() == nil {
		t.Errorf("after it: got %v, health %v", err, l.Healthy())
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

// TestNoTiles sees records taken up that no tile holds, over the ends of tiles.
func TestNoTiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	total := uint64(0)
	for _, n := range []int{1, 254, 1, 300, 600} {
		l := openAt(t, dir)
		l.pub.stop <- struct{}{} // no checkpoint from here on
		l.stopped.Wait()
		for i := range n {
			if err := l.Append("late", i); err != nil {
				t.Fatal(err)
			}
		}
		for _, c := range []io.Closer{l.segment.file, l.lock} {
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
		}
		total += uint64(n)
		if r := verify(t, dir, total); r.Unsigned != n {
			t.Errorf("got %+v, want %d records without a checkpoint", r, n)
		}
	}
	closeLog(t, openAt(t, dir))
	if r := verify(t, dir, total); r.Unsigned != 0 {
		t.Errorf("got %+v, want every record under a checkpoint", r)
	}
}

package debian

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience bounds how long a test waits for something that must happen.
const patience = 20 * time.Second

func until(t *testing.T, what string, happened func() bool) {
	t.Helper()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(patience); !happened(); <-poll.C {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// begin runs a script as apt-get is run. It returns when the script has written its process id to the file "pid"; release opens the
// pipe "go", which the script reads.
func begin(t *testing.T, ctx context.Context, s System, script string) (dir string, pid int, release func(), ended <-chan error) {
	t.Helper()
	dir = t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(dir, "go"), 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.run(ctx, io.Discard, nil, "sh", "-c", "cd '"+dir+"'\n"+script) }()
	until(t, "the script writes its pid", func() bool {
		data, err := os.ReadFile(filepath.Join(dir, "pid"))
		if err != nil || !strings.HasSuffix(string(data), "\n") {
			return false
		}
		pid, err = strconv.Atoi(strings.TrimSpace(string(data)))
		return err == nil
	})
	release = func() {
		f, err := os.OpenFile(filepath.Join(dir, "go"), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		if _, err := f.WriteString("go\n"); err != nil {
			t.Fatal(err)
		}
	}
	return dir, pid, release, done
}

// TestToldToEnd sees TERM reach apt-get alone, once, and the run wait for the dpkg that apt-get leaves behind.
func TestToldToEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	dir, pid, release, ended := begin(t, ctx, System{}, `
trap 'echo TERM >>apt; exit 1' TERM
( trap 'echo TERM >dpkg' TERM; read x <go; echo finished >>dpkg ) >/dev/null &
echo $$ >pid
wait`)
	if group, err := syscall.Getpgid(pid); err != nil || group != pid {
		t.Errorf("process group: got %d, %v, want its own, %d", group, err, pid)
	}
	cancel()
	until(t, "apt-get ends", func() bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) })
	select {
	case err := <-ended:
		t.Fatalf("dpkg was not waited for: %v", err)
	default:
	}
	release()
	if err := <-ended; !errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "left to finish") {
		t.Errorf("got %v, want canceled", err)
	}
	for file, want := range map[string]string{"apt": "TERM\n", "dpkg": "finished\n"} {
		if got, err := os.ReadFile(filepath.Join(dir, file)); string(got) != want {
			t.Errorf("%s: got %q, %v, want %q", file, got, err, want)
		}
	}
}

// TestLeftToFinish bounds the wait, and kills nothing.
func TestLeftToFinish(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	dir, _, release, ended := begin(t, ctx, System{endWait: 50 * time.Millisecond}, `
trap '' TERM
echo $$ >pid
read x <go
echo finished >done`)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "left to finish") {
		t.Errorf("got %v, want canceled and left to finish", err)
	}
	release()
	until(t, "it finishes", func() bool {
		data, err := os.ReadFile(filepath.Join(dir, "done"))
		return err == nil && string(data) == "finished\n"
	})
}

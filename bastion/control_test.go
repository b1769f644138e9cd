package bastion

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOthersMayNotAsk connects to the control socket as another user, whom its mode would let in.
func TestOthersMayNotAsk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user")
	}
	f := controlled(t, 0)
	f.start()
	if err := os.Chmod(f.config.Control, 0o666); err != nil {
		t.Fatal(err)
	}
	at, err := unix.Open(f.config.Control, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(at)
	ask := func(uid int) (answer string, err error) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			runtime.LockOSThread() // never unlocked: the thread, which alone is another user, ends with the goroutine
			if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); errno != 0 {
				err = errno
				return
			}
			var fd int
			if fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
				return
			}
			defer unix.Close(fd)
			if err = unix.Connect(fd, &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d", at)}); err != nil {
				return
			}
			if _, err = unix.Write(fd, []byte(`{"kind":"mayfly-bastion-control/1","do":"status"}`+"\n")); err != nil {
				return
			}
			buffer := make([]byte, 1<<16)
			n, readErr := unix.Read(fd, buffer)
			if errors.Is(readErr, unix.ECONNRESET) {
				n = 0
			} else {
				err = readErr
			}
			answer = string(buffer[:max(n, 0)])
		}()
		<-done
		return answer, err
	}
	if answer, err := ask(0); err != nil || !strings.Contains(answer, `"status":{`) {
		t.Errorf("root: %.200q, %v", answer, err)
	}
	if answer, err := ask(65534); err != nil && !errors.Is(err, unix.EPIPE) || strings.Contains(answer, `"status":{`) {
		t.Errorf("somebody else: %.200q, %v", answer, err)
	}
}

package agent

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// openPTY makes a terminal: what a person types goes into the first.
func openPTY(t *testing.T) (*os.File, string) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("needs terminals: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	raw, err := master.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var number int
	var inner error
	if err := raw.Control(func(fd uintptr) {
		inner = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0)
		if inner == nil {
			number, inner = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	}); err != nil || inner != nil {
		t.Fatal(err, inner)
	}
	return master, "/dev/pts/" + strconv.Itoa(number)
}

// expect reads until the terminal shows all of these.
func expect(t *testing.T, master *os.File, parts ...string) string {
	t.Helper()
	var all strings.Builder
	buffer := make([]byte, 4096)
	if err := master.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	for {
		missing := false
		for _, p := range parts {
			missing = missing || !strings.Contains(all.String(), p)
		}
		if !missing {
			return all.String()
		}
		n, err := master.Read(buffer)
		all.Write(buffer[:n])
		if err != nil {
			t.Fatalf("%v: want %q in %q", err, parts, all.String())
		}
	}
}

// TestRealPinentry: Debian's pinentry-curses, on a terminal without a person at it.
func TestRealPinentry(t *testing.T) {
	program, err := exec.LookPath("pinentry-curses")
	if err != nil {
		t.Skip("needs pinentry-curses, which testenv test installs")
	}
	for _, tt := range []struct {
		name, keys, pin string
		err             error
	}{
		{"right", "123456\r", "123456", nil},
		{"mended", "12x\x7f3456\r", "123456", nil},
		{"the button", "\t\t\r", "", errPINCancelled},
	} {
		t.Run(tt.name, func(t *testing.T) {
			master, tty := openPTY(t)
			raw, err := master.SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			if err := raw.Control(func(fd uintptr) {
				err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: 40, Col: 100})
			}); err != nil {
				t.Fatal(err)
			}
			t.Setenv("TERM", "xterm")
			t.Setenv("LC_CTYPE", "")
			type answer struct {
				pin []byte
				err error
			}
			answers := make(chan answer, 1)
			asker := newPINAsker([]PINWay{Pinentry{Program: program, TTY: tty}}, patience, discard())
			go func() {
				pin, err := asker.ask(t.Context(), question)
				answers <- answer{pin, err}
			}()
			expect(t, master, "TEST card 1", "bastion.lab", "2 tries left.", "wrong", "PIN:")
			if _, err := master.WriteString(tt.keys); err != nil {
				t.Fatal(err)
			}
			go io.Copy(io.Discard, master) // it clears its screen
			if a := <-answers; string(a.pin) != tt.pin || !errors.Is(a.err, tt.err) || tt.err == nil && a.err != nil {
				t.Errorf("got %q, %v", a.pin, a.err)
			}
		})
	}
}

// TestTerminal: the PIN is typed on the agent's own terminal, where nobody sees it.
func TestTerminal(t *testing.T) {
	for _, tt := range []struct{ name, keys, want string }{
		{"typed", "123456\r", "PIN 123456\n"},
		{"mended", "12\x7f\x7fx\x15123456\n", "PIN 123456\n"},
		{"Ctrl-D", "12\x04", "error: " + errPINCancelled.Error() + "\n"},
		{"empty", "\r", "error: " + errPINCancelled.Error() + ": empty\n"},
		{"too long", strings.Repeat("1", maxPIN+1), "error: " + errPINCancelled.Error() + ": more than 64 bytes\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			master, tty := openPTY(t)
			slave, err := os.OpenFile(tty, os.O_RDWR|unix.O_NOCTTY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer slave.Close()
			cmd := exec.CommandContext(t.Context(), os.Args[0])
			cmd.Env = append(os.Environ(), childVariable+"=terminal")
			cmd.Stdin = slave
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
			var said strings.Builder
			cmd.Stderr = &said
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			shown := expect(t, master, "PIN of TEST card 1", "That PIN was wrong.", "2 tries left.", "to log in as anna", "PIN: ")
			if _, err := master.WriteString(tt.keys); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait() // it says how it went
			if !strings.HasSuffix(said.String(), tt.want) {
				t.Errorf("got %q, want %q", said.String(), tt.want)
			}
			if rest := expect(t, master, "\n"); strings.Contains(shown+rest, "12") {
				t.Errorf("the terminal shows what was typed: %q", shown+rest)
			}
			if now, err := unix.IoctlGetTermios(int(slave.Fd()), ioctlGetTermios); err != nil || now.Lflag&unix.ECHO == 0 || now.Lflag&unix.ICANON == 0 {
				t.Errorf("the terminal is not as it was: %v", err)
			}
		})
	}
}

// TestTerminalInBackground: a terminal whose foreground is another's is not read, which would stop the agent.
func TestTerminalInBackground(t *testing.T) {
	_, tty := openPTY(t)
	if _, err := (Terminal{Path: tty}).askPIN(t.Context(), question); !errors.Is(err, errPINUnavailable) {
		t.Errorf("got %v", err)
	}
}

package agent

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// buildPinentry builds the pinentry of testdata, once for a test.
func buildPinentry(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "pinentry")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./testdata/pinentry")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

var question = PINRequest{Card: "TEST card 1", Purpose: "log in as anna at 100% bastion.lab", Tries: 2, Again: true}

// TestPinentry is each answer of a pinentry.
func TestPinentry(t *testing.T) {
	program := buildPinentry(t)
	for _, tt := range []struct {
		do   string
		pin  string
		err  error
		text string
	}{
		{"give 123456", "123456", nil, ""},
		{"give 1%2\n3", "1%2", nil, ""}, // see below
		{"give ", "", errPINCancelled, "empty"},
		{"cancel", "", errPINCancelled, ""},
		{"timeout", "", errPINTimeout, ""},
		{"die", "", errPINUnavailable, "EOF"},
		{"flood", "", errPINUnavailable, "more than 64 lines"},
		{"long", "", errPINUnavailable, "more than 64 bytes"},
		{"garbage", "", errPINUnavailable, "WHAT"},
		{"inquire", "", errPINUnavailable, "INQUIRE"},
		{"notty", "", errPINUnavailable, "Inappropriate ioctl"},
		{"hang", "", errNobody, ""},
	} {
		name, _, _ := strings.Cut(tt.do, " ")
		t.Run(name, func(t *testing.T) {
			log := filepath.Join(t.TempDir(), "log")
			t.Setenv("PINENTRY_LOG", log)
			t.Setenv("PINENTRY_DO", strings.ReplaceAll(tt.do, "\n", "")) // a line holds no line end
			t.Setenv("GPG_TTY", "/dev/pts/x y")
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			if tt.err == errNobody {
				go func() {
					defer cancel(errNobody)
					for ctx.Err() == nil {
						if data, err := os.ReadFile(log); err == nil && strings.Contains(string(data), "GETPIN") {
							return
						}
						time.Sleep(5 * time.Millisecond)
					}
				}()
			}
			asker := newPINAsker([]PINWay{Pinentry{Program: program}}, patience, discard())
			pin, err := asker.ask(ctx, question)
			want := tt.pin
			if tt.do == "give 1%2\n3" {
				want = "1%23"
			}
			if string(pin) != want || !errors.Is(err, tt.err) || tt.err == nil && err != nil {
				t.Fatalf("got %q, %v", pin, err)
			}
			if err != nil && !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v, want …%s…", err, tt.text)
			}
			data, err := os.ReadFile(log)
			if err != nil {
				t.Fatal(err)
			}
			for _, part := range []string{
				"OPTION ttyname=/dev/pts/x y\n", "SETERROR That PIN was wrong.\n", "SETTIMEOUT ",
				"SETDESC PIN of TEST card 1%0Ato log in as anna at 100%25 bastion.lab%0A2 tries left.\n", "GETPIN\n",
			} {
				if !strings.Contains(string(data), part) {
					t.Errorf("it was not told %q:\n%s", part, data)
				}
			}
			if strings.Contains(string(data), "external-password-cache") {
				t.Error("it was told that it may keep the PIN")
			}
		})
	}
}

var errNobody = errors.New("nobody waits any more")

// TestAskpass is each answer of an askpass program.
func TestAskpass(t *testing.T) {
	for _, tt := range []struct {
		name, script string
		pin          string
		err          error
	}{
		{"a line", "echo 123456", "123456", nil},
		{"no line end", "printf 123456", "123456", nil},
		{"more lines", "printf '123456\\r\\nmore\\n'", "123456", nil},
		{"no", "exit 1", "", errPINCancelled},
		{"a PIN and no", "echo 123456; exit 1", "", errPINCancelled},
		{"empty", "echo", "", errPINCancelled},
		{"too long", "head -c 100000 /dev/zero", "", errPINUnavailable},
		{"hangs", "exec sleep 1000", "", errPINTimeout},
	} {
		t.Run(tt.name, func(t *testing.T) {
			program := filepath.Join(t.TempDir(), "askpass")
			write(t, program, "#!/bin/sh\nprintf %s \"$1\" > \"$0.prompt\"\n"+tt.script+"\n", 0o755)
			limit := patience
			if tt.err == errPINTimeout {
				limit = 100 * time.Millisecond
			}
			asker := newPINAsker([]PINWay{Askpass{program}}, limit, discard())
			pin, err := asker.ask(t.Context(), question)
			if string(pin) != tt.pin || !errors.Is(err, tt.err) || tt.err == nil && err != nil {
				t.Fatalf("got %q, %v", pin, err)
			}
			if tt.err == nil {
				if prompt, err := os.ReadFile(program + ".prompt"); err != nil || string(prompt) != strings.Join(question.lines(), "\n")+"\nPIN: " {
					t.Errorf("prompt %q, %v", prompt, err)
				}
			}
		})
	}
}

// TestPINWaysInOrder: the next way is tried where one cannot ask, and not where the person said no.
func TestPINWaysInOrder(t *testing.T) {
	yes, no := &person{answers: []string{"1"}}, &person{}
	for _, tt := range []struct {
		name string
		ways []PINWay
		err  error
	}{
		{"the first cannot", []PINWay{Askpass{}, yes}, nil},
		{"the first is told no", []PINWay{no, yes}, errPINCancelled},
		{"none can", []PINWay{Askpass{}}, errPINUnavailable},
		{"none", nil, errPINUnavailable},
	} {
		if _, err := newPINAsker(tt.ways, patience, discard()).ask(t.Context(), question); !errors.Is(err, tt.err) || tt.err == nil && err != nil {
			t.Errorf("%s: got %v", tt.name, err)
		}
	}
}

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

// terminalChild is what the test program is when it asks on a terminal of its own: the agent's foreground is a process's.
func terminalChild() {
	asker := newPINAsker([]PINWay{Terminal{Path: "/dev/tty"}}, patience, discard())
	pin, err := asker.ask(context.Background(), question)
	if err != nil {
		os.Stderr.WriteString("error: " + err.Error() + "\n")
		os.Exit(1)
	}
	os.Stderr.WriteString("PIN " + string(pin) + "\n")
	os.Exit(0)
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
			shown := expect(t, master, "PIN of TEST card 1", "to log in as anna", "That PIN was wrong.", "2 tries left.", "PIN: ")
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

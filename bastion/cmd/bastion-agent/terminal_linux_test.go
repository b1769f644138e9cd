package main

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mayfly/testenv/pivcard"
)

// TestSetupAsks is a person at a terminal: the plan is shown, "yes" agrees, each new secret is typed twice, and none of it is shown.
func TestSetupAsks(t *testing.T) {
	l := newLab(t, 1)
	card := l.card(0, pivcard.Config{})
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("needs terminals: %v", err)
	}
	defer master.Close()
	raw, err := master.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var number int
	if err := raw.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err == nil {
			number, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	cmd := l.command(append([]string{"setup"}, l.issuers()...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	err = cmd.Start()
	slave.Close()
	if err != nil {
		t.Fatal(err)
	}
	var screen strings.Builder
	if err := master.SetReadDeadline(time.Now().Add(2 * patience)); err != nil {
		t.Fatal(err)
	}
	// until reads on until the screen shows a text that it has not shown before.
	seen := 0
	until := func(text string) {
		t.Helper()
		buffer := make([]byte, 4096)
		for !strings.Contains(screen.String()[seen:], text) {
			n, err := master.Read(buffer)
			screen.Write(buffer[:n])
			if err != nil {
				t.Fatalf("waiting for %q: %v\n%s", text, err, screen.String())
			}
		}
		seen += strings.Index(screen.String()[seen:], text) + len(text)
	}
	answer := func(prompt, typed string) {
		t.Helper()
		until(prompt + ": ")
		if _, err := master.WriteString(typed + "\r"); err != nil {
			t.Fatal(err)
		}
	}
	answer(`type "yes" to go on`, "yes")
	answer("new PIN for card "+strconv.Itoa(int(card.Serial()))+", 6 to 8 characters", goodPIN)
	answer("the same again", goodPIN)
	answer(", 8 characters", goodPUK)
	answer("the same again", goodPUK)
	until("touch the key while it blinks")
	until("the key is made")
	until("ecdsa-sha2-nistp256 ")
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, screen.String())
	}
	if shown := screen.String(); strings.Contains(shown, goodPIN) || strings.Contains(shown, goodPUK) || !strings.Contains(shown, "gone for good") {
		t.Errorf("the screen shows a secret, or not what repeated failures do:\n%s", shown)
	}
	l.want(0, nil, l.enrolls()...) // with the PIN that was typed
}

//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"mayfly/bastion/agent"
	"mayfly/bastion/card"
	"mayfly/testenv/pivcard"
)

// readers are what a test says there is: this test is built without smart cards, and what it starts is not.
type readers struct{ card.Reach }

// cards are those of the lab, as the agent has them.
func (l *lab) cards() agent.Cards {
	l.t.Setenv("PCSCLITE_CSOCK_NAME", l.daemon.Socket())
	return card.Confined{Reach: readers{}, Command: []string{l.bin, card.Verb}}
}

func (l *lab) info(reader int) agent.CardInfo {
	return agent.CardInfo{Reader: l.daemon.Reader(reader)}
}

func givePIN(int) ([]byte, error) { return []byte(goodPIN), nil }

// TestAgentSigns has the agent's own way to cards sign with each type of key, ask for the PIN only when the card does, and have each of two
// cards for itself no longer than it is open.
func TestAgentSigns(t *testing.T) {
	l := newLab(t, 2)
	var serials []uint32
	for reader := range 2 {
		c := l.card(reader, pivcard.Config{})
		serials = append(serials, c.Serial())
		serial := []string{"--serial", fmt.Sprint(c.Serial())}
		l.want(0, nil, l.setUp(serial...)...)
		l.want(0, nil, l.setUp(append(serial, "--type", "p384", "--slot", "82")...)...)
		l.want(0, nil, l.setUp(append(serial, "--type", "ed25519", "--slot", "83")...)...)
	}
	cards := l.cards()
	for reader := range 2 {
		c, err := cards.Open(l.ctx, l.info(reader))
		if err != nil {
			t.Fatal(err)
		}
		if want := serials[reader]; c.Serial() != want {
			t.Errorf("got card %d, want %d", c.Serial(), want)
		}
		if _, err := cards.Open(l.ctx, l.info(reader)); !errors.Is(err, agent.ErrBusy) {
			t.Errorf("opening it twice: got %v, want %v", err, agent.ErrBusy)
		}
		keys, err := c.Keys()
		if err != nil || len(keys) != 3 {
			t.Fatalf("got %v, %v, want three keys", keys, err)
		}
		asked := 0
		for _, k := range keys {
			data := bytes.Repeat([]byte("data "), 200) // longer than one APDU
			sig, err := c.Sign(l.ctx, k, data, func(tries int) ([]byte, error) {
				asked++
				if tries != 5 {
					t.Errorf("got %d tries, want 5", tries)
				}
				return []byte(goodPIN), nil
			})
			if err != nil {
				t.Errorf("%s: %v", k.Slot, err)
			} else if err := k.Public.Verify(data, sig); err != nil {
				t.Errorf("%s: %v", k.Slot, err)
			}
		}
		if asked != 1 {
			t.Errorf("asked for the PIN %d times, want once", asked)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	l.want(0, []string{"firmware 5.7.4"}, "keys")
}

// TestAgentFaults: what goes wrong has the agent's name, and the card can be used again.
func TestAgentFaults(t *testing.T) {
	l := newLab(t, 1)
	virtual := l.card(0, pivcard.Config{})
	l.want(0, nil, l.setUp()...)
	cards := l.cards()
	open := func() (agent.Card, agent.Key) {
		t.Helper()
		c, err := cards.Open(l.ctx, l.info(0))
		if err != nil {
			t.Fatal(err)
		}
		keys, err := c.Keys()
		if err != nil || len(keys) != 1 {
			t.Fatalf("got %v, %v, want a key", keys, err)
		}
		return c, keys[0]
	}

	c, key := open()
	if err := virtual.Touch.SetMode(pivcard.TouchRefused); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Sign(l.ctx, key, []byte("data"), givePIN); !errors.Is(err, agent.ErrNoTouch) {
		t.Errorf("refused: got %v, want %v", err, agent.ErrNoTouch)
	}
	c.Close()

	if err := virtual.Touch.SetMode(pivcard.TouchManual); err != nil {
		t.Fatal(err)
	}
	c, key = open()
	result := make(chan error, 1)
	go func() {
		_, err := c.Sign(l.ctx, key, []byte("data"), givePIN)
		result <- err
	}()
	if err := virtual.Touch.Asked(l.ctx); err != nil {
		t.Fatal(err)
	}
	l.pull(0)
	if err := <-result; !errors.Is(err, agent.ErrGone) {
		t.Errorf("pulled while it waits for a touch: got %v, want %v", err, agent.ErrGone)
	}
	c.Close()
	if _, err := cards.Open(l.ctx, l.info(0)); !errors.Is(err, agent.ErrGone) {
		t.Errorf("an empty reader: got %v, want %v", err, agent.ErrGone)
	}

	l.insert(0, virtual.Serve)
	if _, err := cards.Open(l.ctx, agent.CardInfo{Reader: l.daemon.Reader(0), Serial: 1}); !errors.Is(err, agent.ErrGone) {
		t.Errorf("another card: got %v, want %v", err, agent.ErrGone)
	}
	c, key = open()
	cancelled, cancel := context.WithCancel(l.ctx)
	go func() {
		_, err := c.Sign(cancelled, key, []byte("data"), givePIN)
		result <- err
	}()
	if err := virtual.Touch.Asked(l.ctx); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got %v, want %v", err, context.Canceled)
	}
	c.Close()
	if err := virtual.Touch.Refuse(); err != nil && !errors.Is(err, pivcard.ErrNotAsked) {
		t.Fatal(err)
	}
	if err := virtual.Touch.SetMode(pivcard.TouchAuto); err != nil {
		t.Fatal(err)
	}
	c, key = openAgain(t, l, cards)
	if _, err := c.Sign(l.ctx, key, []byte("data"), givePIN); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	c.Close()

	c, key = open()
	asked := 0
	_, err := c.Sign(l.ctx, key, []byte("data"), func(tries int) ([]byte, error) {
		asked++
		return []byte("000111"), nil
	})
	if !errors.Is(err, agent.ErrPINBlocked) || asked != 5 {
		t.Errorf("wrong PINs: got %v after %d questions, want %v after 5", err, asked, agent.ErrPINBlocked)
	}
	c.Close()
	l.want(1, []string{"the PIN is blocked"}, "doctor")
}

// openAgain opens a card that may still be busy with what was cancelled: it ends that by itself.
func openAgain(t *testing.T, l *lab, cards agent.Cards) (agent.Card, agent.Key) {
	t.Helper()
	for l.ctx.Err() == nil {
		c, err := cards.Open(l.ctx, l.info(0))
		if errors.Is(err, agent.ErrBusy) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		keys, err := c.Keys()
		if err != nil || len(keys) != 1 {
			t.Fatalf("got %v, %v, want a key", keys, err)
		}
		return c, keys[0]
	}
	t.Fatal("the card stays busy")
	return nil, agent.Key{}
}

// TestDoctorSeesWhy: no daemon, a dead one, a card that another program has, a card without PIV.
func TestDoctorSeesWhy(t *testing.T) {
	l := newLab(t, 2)
	c := l.card(0, pivcard.Config{})
	l.want(0, nil, l.setUp()...)
	holding, err := l.cards().Open(l.ctx, l.info(0))
	if err != nil {
		t.Fatal(err)
	}
	l.want(1, []string{"is not to be had", "bastion-agent", "has it for itself", "touch the key, or wait", "disable-scdaemon"}, "doctor")
	l.want(0, []string{"another program has the card for itself", "hint: "}, "keys")
	l.want(1, []string{"another program has the card for itself"}, l.enrolls()...)
	if err := holding.Close(); err != nil {
		t.Fatal(err)
	}
	l.want(0, nil, "doctor") // it is free at once
	l.insert(1, hostile(func([]byte) []byte { return []byte{0x6a, 0x82} }))
	l.want(0, []string{"warn  piv", "has no PIV, or it is switched off", "ykman config usb --enable PIV", fmt.Sprint(c.Serial())}, "doctor")
	l.want(0, []string{"has no PIV", fmt.Sprint(c.Serial())}, "keys")
	l.want(0, nil, l.enrolls()...) // with the card that has it

	socket := filepath.Join(l.dir, "dead")
	dead, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	dead.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{socket: "pcscd has ended, and left its socket", socket + "x": "pcscd does not run"} {
		cmd := exec.CommandContext(l.ctx, l.bin, "doctor")
		cmd.Env = append(os.Environ(), "PCSCLITE_CSOCK_NAME="+path)
		out, err := cmd.Output()
		if err == nil || !strings.Contains(string(out), want) || !strings.Contains(string(out), "failing: 1,") {
			t.Errorf("%s: got %v, want %q:\n%s", path, err, want, out)
		}
	}
}

// TestDaemonHangs: a daemon that has stopped keeps nobody waiting for ever.
func TestDaemonHangs(t *testing.T) {
	l := newLab(t, 1)
	process, err := os.FindProcess(l.daemon.PID())
	if err != nil {
		t.Fatal(err)
	}
	if err := process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer process.Signal(syscall.SIGCONT)
	l.want(1, []string{"ok    socket", "fail  pcsc", "pcscd does not answer", "systemctl restart pcscd.service"}, "doctor")
}

// hostile is a card that answers each APDU with what answer says.
func hostile(answer func(apdu []byte) []byte) func(context.Context, net.Conn) error {
	return func(_ context.Context, conn net.Conn) error {
		raw, err := conn.(*net.TCPConn).SyscallConn()
		if err != nil {
			return err
		}
		read := func(b []byte) error { // vpcd sends a message in two parts, and waits between them until the first is acknowledged
			for len(b) > 0 {
				if err := raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1) }); err != nil {
					return err
				}
				n, err := conn.Read(b)
				if err != nil {
					return err
				}
				b = b[n:]
			}
			return nil
		}
		for {
			var size [2]byte
			if err := read(size[:]); err != nil {
				return err
			}
			message := make([]byte, binary.BigEndian.Uint16(size[:]))
			if err := read(message); err != nil {
				return err
			}
			var back []byte
			switch {
			case len(message) == 1 && message[0] == 4:
				back = []byte{0x3b, 0x80, 0x80, 0x01, 0x01}
			case len(message) == 1: // power off, on, reset: no answer
				continue
			default:
				back = answer(message)
			}
			if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(back))), back...)); err != nil {
				return err
			}
		}
	}
}

// hello answers what every use of a card begins with as a card with this serial number does, and the rest as something else does.
func hello(serial byte, rest func(apdu []byte) []byte) func([]byte) []byte {
	return func(apdu []byte) []byte {
		switch apdu[1] {
		case 0xa4: // SELECT
			return []byte{0x90, 0x00}
		case 0xfd: // version
			return []byte{5, 7, 4, 0x90, 0x00}
		case 0xf8: // serial
			return []byte{0, 0, 1, serial, 0x90, 0x00}
		}
		return rest(apdu)
	}
}

// TestHostileCards has cards answer what no card does, many at once, beside one that is good. Every verb ends with a sentence and an
// exit code of its own, and the good one is found among them.
func TestHostileCards(t *testing.T) {
	always := func(answer ...byte) func([]byte) []byte { return func([]byte) []byte { return answer } }
	answers := []func([]byte) []byte{
		always(0x6d, 0x00),           // it knows nothing
		always(make([]byte, 250)...), // zeroes
		always(0x90, 0x00),           // yes, and nothing more
		always(0x90),                 // half a status word
		always(append(bytes.Repeat([]byte{0x7c}, 256), 0x90, 0x00)...),
		hello(0, always(0x01, 0x90, 0x00)),                                                 // metadata beyond whose end piv-go reads
		hello(1, always(0x01, 0x7f, 0x11, 0x90, 0x00)),                                     // that are cut short
		hello(2, always(1, 1, 0x11, 2, 2, 2, 2, 3, 1, 1, 4, 4, 0x86, 2, 4, 4, 0x90, 0x00)), // with a key that is none
		hello(3, always(1, 1, 0x11, 2, 2, 9, 9, 0x90, 0x00)),                               // with policies that there are not
		hello(4, always(0x53, 0x84, 0x7f, 0xff, 0xff, 0xff, 0x70, 0x90, 0x00)),             // a length of 2 GiB
		hello(5, func(apdu []byte) []byte { return []byte{0x69, apdu[3]} }),                // any status word
		hello(6, always(0x6a, 0x88)),                                                       // a card without anything in it, its metadata included
	}
	const talkative = 7 // cards that say hello
	l := newLab(t, len(answers)+1)
	for i, answer := range answers {
		l.insert(i, hostile(answer))
	}
	good := l.card(len(answers), pivcard.Config{})
	verbs := [][]string{{"keys"}, {"keys", "-o", "json"}, {"doctor"}, l.enrolls()}
	for serial := range talkative {
		flag := fmt.Sprintf("--serial=%d", 256+serial)
		verbs = append(verbs, l.setUp(flag), l.setUp(flag, "--reset-and-destroy-all-piv-keys"), l.enrolls(flag))
	}
	for _, args := range verbs {
		stdout, stderr, code := l.run(args...)
		said := stdout + stderr
		if code > 3 || strings.Contains(said, "panic: ") || strings.Contains(said, "goroutine ") {
			t.Errorf("%q: got exit code %d\n%s", args, code, said)
		}
		if args[0] != "keys" && (code == 0 || !strings.Contains(said, "hint: ")) {
			t.Errorf("%q: got exit code %d, want a failure with a hint\n%s", args, code, said)
		}
	}
	cards := l.cards()
	for i := range answers {
		c, err := cards.Open(l.ctx, l.info(i))
		if err != nil {
			continue
		}
		if keys, err := c.Keys(); err == nil && len(keys) > 0 {
			t.Errorf("card %d: got the keys %v", i, keys)
		}
		c.Close()
	}
	l.want(0, []string{"the key is made"}, l.setUp("--serial", fmt.Sprint(good.Serial()))...)
}

// A card that always has more to say keeps the agent no longer than the agent wants.
func TestEndlessCard(t *testing.T) {
	l := newLab(t, 1)
	var asked atomic.Int64
	enough := make(chan struct{})
	l.insert(0, hostile(func([]byte) []byte {
		if asked.Add(1) == 100 {
			close(enough)
		}
		return append(make([]byte, 200), 0x61, 0xff)
	}))
	ctx, cancel := context.WithCancel(l.ctx)
	defer cancel()
	result := make(chan error, 1)
	cards := l.cards()
	go func() {
		_, err := cards.Open(ctx, l.info(0))
		result <- err
	}()
	select {
	case <-enough:
	case err := <-result:
		t.Fatalf("ended by itself: %v", err)
	case <-l.ctx.Done():
		t.Fatal(l.ctx.Err())
	}
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	l.pull(0)
	l.card(0, pivcard.Config{})
	l.want(0, []string{"no keys"}, "keys")
}

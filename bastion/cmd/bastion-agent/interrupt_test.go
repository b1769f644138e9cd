//go:build linux

package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"mayfly/testenv/pivcard"
)

// TestInterrupted: a card that stops to answer in the middle does not keep the doctor from ending when the person wants it, and it has
// said by then what it found. The other verbs use cards by the same calls.
func TestInterrupted(t *testing.T) {
	l := newLab(t, 1)
	card, err := pivcard.New(pivcard.Config{Issuer: l.issuer})
	if err != nil {
		t.Fatal(err)
	}
	asked, free := make(chan struct{}, 64), make(chan struct{})
	l.insert(0, hostile(func(apdu []byte) []byte {
		if apdu[1] == 0xf7 { // metadata
			asked <- struct{}{}
			<-free
		}
		return card.Transmit(apdu)
	}))
	t.Cleanup(func() { close(free) })
	cmd := l.command("doctor")
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-asked:
	case <-l.ctx.Done():
		t.Fatal("the card is never asked")
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	cmd.Wait() // its exit code is looked at
	if code := cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(said.String(), "interrupted: ") || !strings.Contains(said.String(), "ok    firmware") {
		t.Errorf("got exit code %d\n%s", code, &said)
	}
}

// TestInterruptedTouch: who ends a verb does not wait until the card has given up waiting for the touch.
func TestInterruptedTouch(t *testing.T) {
	l := newLab(t, 1)
	card := l.card(0, pivcard.Config{})
	if err := card.Touch.SetMode(pivcard.TouchManual); err != nil {
		t.Fatal(err)
	}
	cmd := l.command(l.setUp()...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := card.Touch.Asked(l.ctx); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	cmd.Wait() // its exit code is looked at
	if code := cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(said.String(), "signing with slot 9a: context canceled") {
		t.Errorf("got exit code %d\n%s", code, &said)
	}
}

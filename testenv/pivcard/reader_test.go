package pivcard

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"
)

// patience is for what must happen.
const patience = 60 * time.Second

// slotIn runs a card's slot at a reader that hands its side of each connection to conns.
func slotIn(t *testing.T, card *Card, inside bool) (slot *Slot, conns chan net.Conn) {
	t.Helper()
	conns = make(chan net.Conn, 8)
	slot = NewSlot(card, func(context.Context) (net.Conn, error) {
		ours, theirs := net.Pipe()
		conns <- ours
		return theirs, nil
	}, inside)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- slot.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return slot, conns
}

func TestSlot(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c := newCard(t, fw574)
	slot, conns := slotIn(t, c.card, false)
	if inside, why := slot.State(); inside || why != nil {
		t.Errorf("outside: got %v, %v", inside, why)
	}
	if err := slot.Insert(ctx); err != nil {
		t.Fatal(err)
	}
	first := <-conns
	v := vpcd{t: t, conn: first}
	v.ask([]byte{0, 0xA4, 4, 0, 5, 0xA0, 0, 0, 3, 8})
	first.Close() // the reader hangs up: the card goes in again
	v.conn = <-conns
	if got := v.ask([]byte{0, 0xFD, 0, 0}); got[0] != 0x6D {
		t.Errorf("after the reader hung up: got % x, want nothing selected", got)
	}
	if err := slot.Wait(ctx, true); err != nil {
		t.Fatal(err)
	}
	if err := slot.Pull(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := readFrame(v.conn); err == nil {
		t.Error("the reader got a message from a card that was pulled")
	}
	if err := slot.Pull(ctx); err != nil {
		t.Errorf("pulled again: %v", err)
	}
	if err := slot.Insert(ctx); err != nil {
		t.Fatal(err)
	}
	v.conn = <-conns
	v.ask([]byte{controlATR})
}

// A card is pulled in the middle of a command, and nothing was signed.
func TestSlotPulledMidCommand(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c := newCard(t, fw574)
	c.administrator()
	c.generate(0x11, 0x9A, 1, 2)
	slot, conns := slotIn(t, c.card, true)
	v := vpcd{t: t, conn: <-conns}
	v.ask([]byte{0, 0xA4, 4, 0, 5, 0xA0, 0, 0, 3, 8})
	if err := writeFrame(v.conn, append([]byte{0, 0x87, 0x11, 0x9A, 38, 0x7C, 36, 0x82, 0, 0x81, 32}, make([]byte, 32)...)); err != nil {
		t.Fatal(err)
	}
	if err := c.card.Touch.Asked(ctx); err != nil {
		t.Fatal(err)
	}
	if err := slot.Pull(ctx); err != nil {
		t.Fatal(err)
	}
	if got := c.card.Show(); got.Signatures != 0 || got.Touch.Pulled != 1 {
		t.Errorf("got %+v", got.Touch)
	}
}

// Why a card does not get in is to be seen.
func TestSlotNoReader(t *testing.T) {
	c := newCard(t, fw574)
	ctx, cancel := context.WithCancel(t.Context())
	attempts := 0
	slot := NewSlot(c.card, func(context.Context) (net.Conn, error) {
		if attempts++; attempts == 3 {
			cancel()
		}
		return nil, errors.New("no reader")
	}, true)
	if err := slot.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if inside, why := slot.State(); inside || why == nil || why.Error() != "getting into the reader: no reader" {
		t.Errorf("got %v, %v", inside, why)
	}
	if err := slot.Wait(ctx, true); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "no reader") {
		t.Errorf("got %v", err)
	}
}

func TestDialTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := DialTCP(l.Addr().String())(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

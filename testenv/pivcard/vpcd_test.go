package pivcard

import (
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"testing"
)

// vpcd is the reader's side of a connection.
type vpcd struct {
	t    *testing.T
	conn net.Conn
	done chan error // of the card's side
}

func plug(t *testing.T, ctx context.Context, card *Card) vpcd {
	t.Helper()
	ours, theirs := net.Pipe()
	v := vpcd{t, ours, make(chan error, 1)}
	go func() { v.done <- card.Serve(ctx, theirs) }()
	t.Cleanup(func() { ours.Close() })
	return v
}

func (v vpcd) ask(b []byte) []byte {
	v.t.Helper()
	if err := writeFrame(v.conn, b); err != nil {
		v.t.Fatal(err)
	}
	out, err := readFrame(v.conn)
	if err != nil {
		v.t.Fatal(err)
	}
	return out
}

func TestServe(t *testing.T) {
	c := newCard(t, fw574)
	v := plug(t, t.Context(), c.card)
	if got := v.ask([]byte{controlATR}); !bytes.Equal(got, c.card.ATR()) {
		t.Errorf("ATR: got % x", got)
	}
	if err := writeFrame(v.conn, []byte{controlOn}); err != nil {
		t.Fatal(err)
	}
	if got := v.ask([]byte{0, 0xFD, 0, 0}); !bytes.Equal(got, []byte{0x6D, 0}) {
		t.Errorf("before SELECT: got % x", got)
	}
	v.ask([]byte{0, 0xA4, 4, 0, 5, 0xA0, 0, 0, 3, 8})
	if got := v.ask([]byte{0, 0xFD, 0, 0}); !bytes.Equal(got, []byte{5, 7, 4, 0x90, 0}) {
		t.Errorf("version: got % x", got)
	}
	v.ask(append([]byte{0, 0x20, 0, 0x80, 8}, padded(DefaultPIN)...))
	if err := writeFrame(v.conn, []byte{controlReset}); err != nil {
		t.Fatal(err)
	}
	if got := v.ask([]byte{0, 0x20, 0, 0x80}); !bytes.Equal(got, []byte{0x6D, 0}) {
		t.Errorf("after a reset: got % x, want nothing selected", got)
	}
	if err := v.conn.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-v.done; err != nil {
		t.Errorf("a reader that hangs up: got %v", err)
	}
}

// Messages that are none end the connection with an error.
func TestServeRefuses(t *testing.T) {
	c := newCard(t, fw574)
	for name, b := range map[string][]byte{"an unknown control message": {0, 1, 3}, "an empty message": {0, 0}, "half a message": {0, 9, 1}} {
		v := plug(t, t.Context(), c.card)
		if _, err := v.conn.Write(b); err != nil {
			t.Fatal(err)
		}
		if name == "half a message" {
			v.conn.Close()
		}
		if err := <-v.done; err == nil || !strings.Contains(err.Error(), "speaking to vpcd") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// The reader hangs up, or the card's program ends, while the card waits for a touch.
func TestServePulled(t *testing.T) {
	for _, tt := range []string{"reader", "program"} {
		c := newCard(t, fw574)
		c.administrator()
		c.generate(0x11, 0x9A, 1, 2)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		v := plug(t, ctx, c.card)
		v.ask([]byte{0, 0xA4, 4, 0, 5, 0xA0, 0, 0, 3, 8})
		if err := writeFrame(v.conn, append([]byte{0, 0x87, 0x11, 0x9A, 38, 0x7C, 36, 0x82, 0, 0x81, 32}, make([]byte, 32)...)); err != nil {
			t.Fatal(err)
		}
		if err := c.card.Touch.Asked(t.Context()); err != nil {
			t.Fatal(err)
		}
		if tt == "reader" {
			v.conn.Close()
		} else {
			cancel()
		}
		err := <-v.done
		if got := c.card.Touch.State(); got.Pulled != 1 || got.Waiting {
			t.Errorf("%s: touches: got %+v", tt, got)
		}
		if tt == "program" && err != nil {
			t.Errorf("%s: got %v", tt, err)
		}
	}
}

func TestFrames(t *testing.T) {
	var b bytes.Buffer
	if err := writeFrame(&b, make([]byte, 0x10000)); err == nil || b.Len() != 0 {
		t.Errorf("a frame too long: got %v and %d bytes", err, b.Len())
	}
	if err := writeFrame(&b, make([]byte, 0xFFFF)); err != nil {
		t.Fatal(err)
	}
	if got, err := readFrame(&b); err != nil || len(got) != 0xFFFF {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
	if _, err := readFrame(strings.NewReader("\x00")); err != io.ErrUnexpectedEOF {
		t.Errorf("half a length: got %v", err)
	}
	if _, err := readFrame(strings.NewReader("\x00\x02x")); err != io.ErrUnexpectedEOF {
		t.Errorf("half a message: got %v", err)
	}
	if _, err := readFrame(strings.NewReader("")); err != io.EOF {
		t.Errorf("nothing: got %v", err)
	}
}

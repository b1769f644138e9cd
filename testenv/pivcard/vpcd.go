package pivcard

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
)

// Control messages of vpcd's protocol: messages of one byte, which no APDU is (virtualsmartcard, vpcd.h).
const (
	controlOff   = 0
	controlOn    = 1
	controlReset = 2
	controlATR   = 4
)

// errFrame is a message that is none.
var errFrame = errors.New("a message of vpcd's protocol that is none")

// readFrame reads a message: two bytes of length, high byte first, and the bytes.
func readFrame(r io.Reader) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, noEOF(err)
	}
	return b, nil
}

// noEOF is for an end inside of a message.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// writeFrame is readFrame's inverse.
func writeFrame(w io.Writer, b []byte) error {
	if len(b) > 0xFFFF {
		return errFrame
	}
	_, err := w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
	return err
}

// Serve is the card in a reader of vpcd's, to which conn leads, until the reader hangs up or ctx ends. It closes conn. A wait for a touch ends with
// it. Its error is of a reader that broke the protocol or the connection.
func (c *Card) Serve(ctx context.Context, conn net.Conn) error {
	powered, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(powered, func() { conn.Close() })
	defer stop()
	frames := make(chan []byte)
	var ended error
	go func() { // reads on during a command, so that a reader that hangs up is noticed
		defer close(frames)
		defer cancel()
		for {
			b, err := readFrame(quick{conn})
			if err != nil {
				ended = err
				return
			}
			select {
			case frames <- b:
			case <-powered.Done():
				return
			}
		}
	}()
	var failed error
	for b := range frames {
		if failed != nil {
			continue
		}
		if failed = c.serve(powered, conn, b); failed != nil {
			cancel()
		}
	}
	c.Reset() // out of the reader it has no power
	if failed == nil && ended != nil && !errors.Is(ended, io.EOF) {
		failed = ended
	}
	if failed != nil && ctx.Err() == nil {
		return fmt.Errorf("speaking to vpcd: %w", failed)
	}
	return nil
}

func (c *Card) serve(ctx context.Context, w io.Writer, b []byte) error {
	if len(b) != 1 {
		if len(b) == 0 {
			return errFrame
		}
		return writeFrame(w, c.TransmitContext(ctx, b))
	}
	switch b[0] {
	case controlOff, controlOn, controlReset:
		c.Reset()
		return nil
	case controlATR:
		return writeFrame(w, c.ATR())
	}
	return errFrame
}

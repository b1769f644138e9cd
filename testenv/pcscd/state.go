package pcscd

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// The protocol between libpcsclite and the daemon, version 4.4 (pcsc-lite 1.9.9, winscard_msg.h): structures of C in native order.
const (
	commandVersion = 0x11
	commandReaders = 0x12
	versionMajor   = 4
	versionMinor   = 4

	readerNameSize = 128
	stateSize      = readerNameSize + 4 + 4 + 4 + 33 + 3 + 4 + 4 // name, events, state, sharing, ATR, padding, its length, protocol
	statePresent   = 0x0004
)

// Implementation constants.
const (
	poll        = 20 * time.Millisecond
	answerLimit = 10 * time.Second
)

// State is what the daemon says of a reader.
type State struct {
	Name    string
	Present bool
	Events  uint32 // insertions and removals, counted
	ATR     []byte
}

// States asks the daemon for its readers.
func (p Place) States(ctx context.Context) ([]State, error) {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", p.Socket())
	if err != nil {
		return nil, fmt.Errorf("asking pcscd for its readers: %w", err)
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return nil, fmt.Errorf("asking pcscd for its readers: %w", err)
		}
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	states, err := ask(conn)
	if err != nil {
		return nil, fmt.Errorf("asking pcscd for its readers: %w", err)
	}
	return states, nil
}

func ask(conn io.ReadWriter) ([]State, error) {
	var version [12]byte
	binary.NativeEndian.PutUint32(version[0:], versionMajor)
	binary.NativeEndian.PutUint32(version[4:], versionMinor)
	if err := request(conn, commandVersion, version[:]); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(conn, version[:]); err != nil {
		return nil, err
	}
	if result := binary.NativeEndian.Uint32(version[8:]); result != 0 {
		return nil, fmt.Errorf("version %d.%d: refused with %#x", versionMajor, versionMinor, result)
	}
	if err := request(conn, commandReaders, nil); err != nil {
		return nil, err
	}
	answer := make([]byte, maxReaders*stateSize)
	if _, err := io.ReadFull(conn, answer); err != nil {
		return nil, err
	}
	return parseStates(answer)
}

func request(w io.Writer, command uint32, body []byte) error {
	message := binary.NativeEndian.AppendUint32(nil, uint32(len(body)))
	message = binary.NativeEndian.AppendUint32(message, command)
	_, err := w.Write(append(message, body...))
	return err
}

// parseStates reads the daemon's table, in which readers that are not there have no name.
func parseStates(table []byte) ([]State, error) {
	if len(table) != maxReaders*stateSize {
		return nil, fmt.Errorf("table of readers: got %d bytes, want %d", len(table), maxReaders*stateSize)
	}
	var states []State
	for ; len(table) > 0; table = table[stateSize:] {
		name, _, ended := bytes.Cut(table[:readerNameSize], []byte{0})
		if !ended {
			return nil, errors.New("table of readers: a name without an end")
		}
		if len(name) == 0 {
			continue
		}
		rest := table[readerNameSize:stateSize]
		atr, size := rest[12:45], binary.NativeEndian.Uint32(rest[48:])
		if size > uint32(len(atr)) {
			return nil, fmt.Errorf("table of readers: %s: an ATR of %d bytes", name, size)
		}
		states = append(states, State{
			Name:    string(name),
			Events:  binary.NativeEndian.Uint32(rest[0:]),
			Present: binary.NativeEndian.Uint32(rest[4:])&statePresent != 0,
			ATR:     bytes.Clone(atr[:size]),
		})
	}
	return states, nil
}

// Ready waits until the daemon answers and has all its readers.
func (p Place) Ready(ctx context.Context) error {
	return p.await(ctx, func(states map[string]State) bool {
		for reader := range p.Readers {
			if _, ok := states[p.Reader(reader)]; !ok {
				return false
			}
		}
		return true
	})
}

// State asks the daemon for one reader.
func (p Place) State(ctx context.Context, reader int) (State, error) {
	states, err := p.States(ctx)
	if err != nil {
		return State{}, err
	}
	for _, s := range states {
		if s.Name == p.Reader(reader) {
			return s, nil
		}
	}
	return State{}, fmt.Errorf("pcscd has no reader %q", p.Reader(reader))
}

// AwaitCard waits until the daemon has noticed that a card is in the reader.
func (p Place) AwaitCard(ctx context.Context, reader int) error {
	return p.await(ctx, func(states map[string]State) bool { return states[p.Reader(reader)].Present })
}

// AwaitRemoval waits until the daemon has noticed that a card was pulled which was there in that state of the reader. Before, no card is to be
// plugged in: the daemon looks every 0.4 s and takes a card that is back by then for one that never left. That the reader is empty
// proves nothing: a program that finds the card gone writes that down too, and the daemon then believes both for ever.
func (p Place) AwaitRemoval(ctx context.Context, reader int, before State) error {
	return p.await(ctx, func(states map[string]State) bool {
		s, ok := states[p.Reader(reader)]
		return ok && !s.Present && s.Events != before.Events
	})
}

func (p Place) await(ctx context.Context, enough func(map[string]State) bool) error {
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		states, err := p.States(ctx)
		byName := map[string]State{}
		for _, s := range states {
			byName[s.Name] = s
		}
		if err == nil && enough(byName) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for pcscd's readers, of which there are %v: %w", states, errors.Join(ctx.Err(), err))
		case <-tick.C:
		}
	}
}

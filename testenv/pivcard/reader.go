package pivcard

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// Implementation constants.
const (
	dialTimeout  = 5 * time.Second
	dialAgain    = 100 * time.Millisecond // between attempts to get into a reader that is not there yet
	pullPatience = 30 * time.Second       // how long Pull and Insert wait for it to be so
)

// Slot is a card's place in a reader of vpcd's: in it or out of it.
type Slot struct {
	card *Card
	dial Dial

	mu      sync.Mutex
	inside  bool          // what is wanted
	serving bool          // what is so
	why     error         // why it is not in the reader, of the last attempt
	leave   func()        // ends the connection
	changed chan struct{} // closed when something above changes, and then made anew
}

// Dial leads to a reader.
type Dial func(context.Context) (net.Conn, error)

// DialTCP leads to vpcd at a TCP address.
func DialTCP(address string) Dial {
	return func(ctx context.Context) (net.Conn, error) {
		dialer := net.Dialer{Timeout: dialTimeout}
		return dialer.DialContext(ctx, "tcp", address)
	}
}

// NewSlot puts a card in front of a reader; Run brings it in if inside is set.
func NewSlot(card *Card, dial Dial, inside bool) *Slot {
	return &Slot{card: card, dial: dial, inside: inside, changed: make(chan struct{})}
}

// note changes something under the lock and wakes who waits for it.
func (s *Slot) note(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
	close(s.changed)
	s.changed = make(chan struct{})
}

// Run keeps the card in the reader, or out of it, as was last said, until ctx ends.
func (s *Slot) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		s.mu.Lock()
		inside, changed := s.inside, s.changed
		s.mu.Unlock()
		if !inside {
			select {
			case <-changed:
			case <-ctx.Done():
			}
			continue
		}
		if err := s.stay(ctx); err != nil {
			s.note(func() { s.why = err })
			again := time.NewTimer(dialAgain)
			select {
			case <-again.C:
			case <-ctx.Done():
			}
			again.Stop()
		}
	}
	return nil
}

// stay is one connection.
func (s *Slot) stay(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.mu.Lock()
	s.leave = cancel
	if !s.inside {
		cancel()
	}
	s.mu.Unlock()
	conn, err := s.dial(ctx)
	if err != nil {
		return fmt.Errorf("getting into the reader: %w", err)
	}
	if ctx.Err() != nil { // pulled before it was in
		return conn.Close()
	}
	s.note(func() { s.serving, s.why = true, nil })
	defer s.note(func() { s.serving = false })
	if err := s.card.Serve(ctx, conn); err != nil || ctx.Err() != nil {
		return err
	}
	return errors.New("the reader hung up")
}

// State says whether the card is in the reader, and why not.
func (s *Slot) State() (inside bool, why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.serving, s.why
}

// Pull takes the card out of the reader, also in the middle of a command, and returns when it is out.
func (s *Slot) Pull(ctx context.Context) error { return s.move(ctx, false) }

// Insert puts it in, and returns when it is in.
func (s *Slot) Insert(ctx context.Context) error { return s.move(ctx, true) }

func (s *Slot) move(ctx context.Context, inside bool) error {
	ctx, cancel := context.WithTimeout(ctx, pullPatience)
	defer cancel()
	s.note(func() {
		s.inside, s.why = inside, nil
		if !inside && s.leave != nil {
			s.leave()
		}
	})
	return s.Wait(ctx, inside)
}

// Wait returns when the card is in the reader, or out of it.
func (s *Slot) Wait(ctx context.Context, inside bool) error {
	for {
		s.mu.Lock()
		serving, why, changed := s.serving, s.why, s.changed
		s.mu.Unlock()
		if serving == inside {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("waiting for the card to be in the reader (%v): %w", inside, errors.Join(ctx.Err(), why))
		}
	}
}

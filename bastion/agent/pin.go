package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// PINRequest says to the person what they give their PIN for.
type PINRequest struct {
	Card    string
	Purpose string
	Tries   int  // that are left before the card blocks; negative: not known
	Again   bool // the card did not take what was just given
}

// maxPIN bounds a PIN, in bytes. PIV has eight; others more.
const maxPIN = 64

// lines are the request in plain text, as every way of asking shows it: what others may make long comes last.
func (q PINRequest) lines() []string {
	return append(append([]string{"PIN of " + q.Card}, q.warning()...), "to "+q.Purpose)
}

// warning is what went wrong and what is left.
func (q PINRequest) warning() (lines []string) {
	if q.Again {
		lines = append(lines, "That PIN was wrong.")
	}
	switch {
	case q.Tries == 1:
		lines = append(lines, "This is the LAST try: a wrong PIN now blocks the card.")
	case q.Tries > 1:
		lines = append(lines, fmt.Sprintf("%d tries left.", q.Tries))
	}
	return lines
}

// PINWay is one way to ask a person for a PIN. Its errors wrap errPINCancelled where the person said no, and errPINUnavailable where it
// could not ask, so that the next way is tried.
type PINWay interface {
	Name() string
	askPIN(ctx context.Context, q PINRequest) ([]byte, error)
}

// pinAsker asks by the first way that can, one request at a time: two prompts at once would have people answer the wrong one.
type pinAsker struct {
	ways []PINWay
	time time.Duration
	log  *slog.Logger
	turn chan struct{} // holds one token
}

func newPINAsker(ways []PINWay, limit time.Duration, log *slog.Logger) *pinAsker {
	a := &pinAsker{ways: ways, time: limit, log: log, turn: make(chan struct{}, 1)}
	a.turn <- struct{}{}
	return a
}

// ask returns the PIN, which the caller wipes.
func (a *pinAsker) ask(ctx context.Context, q PINRequest) ([]byte, error) {
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-a.turn:
		defer func() { a.turn <- struct{}{} }()
	}
	ctx, cancel := context.WithTimeoutCause(ctx, a.time, errPINTimeout)
	defer cancel()
	var failed []string
	for _, w := range a.ways {
		pin, err := w.askPIN(ctx, q)
		switch {
		case ctx.Err() != nil:
			clear(pin)
			return nil, context.Cause(ctx)
		case err == nil && len(pin) > 0:
			return pin, nil
		case err == nil:
			return nil, fmt.Errorf("%w: empty", errPINCancelled)
		case !errors.Is(err, errPINUnavailable):
			return nil, err
		}
		a.log.Debug("cannot ask for the PIN this way", "way", w.Name(), "error", err)
		failed = append(failed, w.Name()+": "+err.Error())
	}
	if len(failed) == 0 {
		return nil, errPINUnavailable
	}
	return nil, fmt.Errorf("%w (%s)", errPINUnavailable, strings.Join(failed, "; "))
}

// unavailable says why a way cannot ask.
func unavailable(format string, args ...any) error {
	return fmt.Errorf("%w: %w", errPINUnavailable, fmt.Errorf(format, args...))
}

//go:build pcsc

package main

import (
	"context"
	"fmt"
	"time"

	"mayfly/bastion/card"
)

// How long one thing may take that a card is asked (implementation constants). A card waits 15 s for a touch.
const (
	limitAsk   = 30 * time.Second
	limitTouch = 75 * time.Second
	limitGrace = 2 * time.Second // for what has begun when the person ends it: a card that is well has done it by then
	limitClose = 5 * time.Second
)

// use is one thing that a card is asked.
type use struct {
	doing string
	limit time.Duration
	grace time.Duration // after the context's end
	asks  chan pinAsk   // of the library, for the PIN; nil: it does not
	pin   func() (string, error)
}

// pinAsk is a question for the PIN, with where its answer goes.
type pinAsk chan pinAnswer

type pinAnswer struct {
	pin string
	err error
}

// interrupted is the end of a use by the person, or by whoever else wants it no longer.
func interrupted(ctx context.Context, u use) error { return fmt.Errorf("%s: %w", u.doing, ctx.Err()) }

// bounded does one thing with a card, and waits for it no longer than it may take, nor than the person wants. Nothing can end a call that
// PC/SC keeps, not even to close the connection: the call is left behind, and late is told what came of it, should it ever end. Left reports
// that, and then nothing more can be asked over its connection: it ends with the process. A panic of the library about an answer
// that it did not expect becomes an error. The time that a person takes for the PIN counts for nothing.
func bounded[T any](ctx context.Context, u use, do func() (T, error), late func(T)) (value T, left bool, err error) {
	type result struct {
		value T
		err   error
	}
	if ctx.Err() != nil {
		return value, false, interrupted(ctx, u)
	}
	done := make(chan result, 1)
	go func() {
		var r result
		defer func() {
			if p := recover(); p != nil {
				r.err = card.NewError(card.Garbage, "%s: the card's answer made no sense: %v", u.doing, p)
			}
			done <- r
		}()
		r.value, r.err = do()
	}()
	timer := time.NewTimer(u.limit)
	defer timer.Stop()
	why := error(nil)
	ended := ctx.Done()
	for why == nil {
		select {
		case r := <-done:
			return r.value, false, faulty(u.doing, r.err)
		case ask := <-u.asks:
			timer.Stop()
			p, err := u.pin()
			ask <- pinAnswer{p, err}
			timer.Reset(u.limit)
		case <-ended:
			ended = nil
			if u.grace > 0 {
				timer.Reset(u.grace)
			} else {
				why = interrupted(ctx, u)
			}
		case <-timer.C:
			if why = interrupted(ctx, u); ended != nil {
				why = card.NewError(card.TooLong, "%s: no end after %s", u.doing, u.limit)
			}
		}
	}
	select {
	case r := <-done: // at the last moment
		return r.value, false, faulty(u.doing, r.err)
	default:
	}
	go func() {
		for {
			select {
			case ask := <-u.asks:
				ask <- pinAnswer{err: why}
			case r := <-done:
				if late != nil && r.err == nil {
					late(r.value)
				}
				return
			}
		}
	}()
	var none T
	return none, true, why
}

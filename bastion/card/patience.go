package card

import (
	"context"
	"sync"
	"time"
)

// Patience asks PC/SC for readers, where libpcsclite waits for ever for a daemon that has stopped: of calls that are not answered there is one, and not
// one for each question; once that has taken too long, who asks is told so at once until it is answered.
type Patience struct {
	limit time.Duration
	turn  chan struct{} // holds a token while a call is out

	mu    sync.Mutex
	hangs bool // it has been out for too long
}

// NewPatience waits for one call that long.
func NewPatience(limit time.Duration) *Patience {
	return &Patience{limit: limit, turn: make(chan struct{}, 1)}
}

// Readers has list asked.
func (p *Patience) Readers(ctx context.Context, list func() ([]Reader, error)) ([]Reader, error) {
	late := NewError(TooLong, "pcscd does not answer")
	p.mu.Lock()
	hangs := p.hangs
	p.mu.Unlock()
	if hangs {
		return nil, late
	}
	ctx, cancel := context.WithTimeoutCause(ctx, p.limit, late)
	defer cancel()
	select {
	case p.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	type result struct {
		readers []Reader
		err     error
	}
	answer, over := make(chan result, 1), make(chan struct{})
	slow := time.AfterFunc(p.limit, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		select {
		case <-over:
		default:
			p.hangs = true
		}
	})
	go func() {
		readers, err := list()
		slow.Stop()
		p.mu.Lock()
		close(over)
		p.hangs = false
		p.mu.Unlock()
		<-p.turn
		answer <- result{readers, err}
	}()
	select {
	case r := <-answer:
		return r.readers, r.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// secrets are the PINs of one operation, until it is over.
type secrets struct {
	mu   sync.Mutex
	over bool
	all  [][]byte
}

// keep has a PIN wiped when the operation is over, at once if it is.
func (s *secrets) keep(pin []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		clear(pin)
		return
	}
	s.all = append(s.all, pin)
}

func (s *secrets) wipe() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	for _, pin := range s.all {
		clear(pin)
	}
	s.all = nil
}

// attempt is one signature on its way.
type attempt struct {
	agent   *Agent
	key     placed
	purpose string
	asking  chan bool // true: a person is asked for the PIN; false: no longer

	mu     sync.Mutex
	prompt error // why the person gave no PIN: the cause, whatever the card makes of it
	atWork bool  // the card is open
}

// sign makes one signature by a card, with the person's PIN and touch where the card wants them.
func (a *Agent) sign(ctx context.Context, key placed, data []byte, purpose string) (*ssh.Signature, *Refusal) {
	slot, release, refusal := a.keyring.take(ctx, key.card)
	if refusal != nil {
		return nil, refusal
	}
	began := time.Now()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	t := &attempt{agent: a, key: key, purpose: purpose, asking: make(chan bool)}
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		t.watch(ctx, cancel)
	}()
	sig, err := answer(ctx, func(ctx context.Context) (sig *ssh.Signature, err error) {
		card, err := a.keyring.open(ctx, key.card, a.keyring.busy)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, card.Close()) }()
		var s secrets
		defer s.wipe()
		t.opened(ctx)
		return card.Sign(ctx, key.Key, data, t.pin(ctx, &s))
	}, release)
	err = t.cause(err)
	cause := context.Cause(ctx)
	if err == nil {
		cause = nil
		if wrong := verify(key.Public, data, sig); wrong != nil {
			err = wrong
			refusal = refuse(ReasonCardSignature, "%s: its signature is not by the key that it was asked for: %w", key.card, wrong).
				hint("another card is in the reader than before; try again")
			a.keyring.forget(nil)
		}
	}
	if cause != nil && t.hadCard() {
		a.keyring.givenUp(slot)
	}
	t.outcome(err, cause, cancel)
	<-watched
	if refusal == nil && err != nil {
		refusal = refusalOf(key.card, err, cause)
		if refusal.Reason == ReasonCardBusy && a.keyring.ourOwn(slot, began) {
			refusal = refuse(ReasonCardBusy, "%s: it still waits for the touch of a request that was given up: %w", key.card, err).
				hint("wait until it stops blinking, and try again; if it does not, plug it out and in")
		}
		if refusal.Reason == ReasonCardGone || refusal.Reason == ReasonCardFailed {
			a.keyring.forget(nil)
		}
	}
	if refusal != nil {
		return nil, refusal
	}
	return sig, nil
}

// errDone ends an attempt that ended by itself.
var errDone = errors.New("done")

// outcome ends the watch.
func (t *attempt) outcome(err, cause error, cancel context.CancelCauseFunc) {
	switch {
	case err == nil:
		cancel(errDone)
	case cause == nil:
		cancel(err)
	}
}

// opened says that the card is at work: from here a touch is waited for, unless a PIN is asked for first.
func (t *attempt) opened(ctx context.Context) {
	t.mu.Lock()
	t.atWork = true
	t.mu.Unlock()
	t.say(ctx, false)
}

func (t *attempt) hadCard() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.atWork
}

func (t *attempt) say(ctx context.Context, asking bool) {
	select {
	case t.asking <- asking:
	case <-ctx.Done():
	}
}

// pin returns what the card asks when it wants a PIN.
func (t *attempt) pin(ctx context.Context, s *secrets) func(int) ([]byte, error) {
	asked := 0
	return func(tries int) ([]byte, error) {
		switch {
		case tries == 0:
			return nil, t.failed(ErrPINBlocked)
		case asked == maxPINPrompts:
			return nil, t.failed(errPINTries)
		}
		asked++
		t.say(ctx, true)
		secret, err := t.agent.pins.ask(ctx, PINRequest{Card: t.key.card.String(), Purpose: t.purpose, Tries: tries, Again: asked > 1})
		if err != nil {
			return nil, t.failed(err)
		}
		s.keep(secret)
		t.say(ctx, false)
		return secret, nil
	}
}

func (t *attempt) failed(err error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.prompt = err
	return err
}

// cause is the error that counts.
func (t *attempt) cause(err error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil && t.prompt != nil {
		return t.prompt
	}
	return err
}

// watch shows "touch your key" while the card waits, and gives the card up when it has waited too long. Until the card is open, and while a
// person is asked for the PIN, no touch is waited for.
func (t *attempt) watch(ctx context.Context, cancel context.CancelCauseFunc) {
	var grace <-chan time.Time
	limit := time.After(t.agent.keyring.busy + t.agent.config.TouchTime) // for opening the card
	over := func(string) {}
	asked, opened := false, false
	for {
		select {
		case asking := <-t.asking:
			opened = true
			over("waiting for the PIN")
			over, grace, limit = func(string) {}, nil, nil
			if asking {
				asked = true
				continue
			}
			limit = time.After(t.agent.config.TouchTime)
			switch {
			case !t.key.Touch:
			case asked:
				over = t.agent.show(t.notice())
			default: // perhaps the card asks for a PIN at once: no notice that comes and goes
				grace = time.After(touchGrace)
			}
		case <-grace:
			grace = nil
			over = t.agent.show(t.notice())
		case <-limit:
			if opened && t.key.Touch {
				cancel(errTouchTime)
			} else {
				cancel(errCardTime)
			}
			limit = nil
		case <-ctx.Done():
			switch cause := context.Cause(ctx); {
			case errors.Is(cause, errDone):
				over("done")
			default:
				over(fmt.Sprintf("not done: %v", cause))
			}
			return
		}
	}
}

func (t *attempt) notice() Notice {
	return Notice{Title: "Touch your key", Body: "to " + t.purpose + " (" + t.key.card.String() + ")", Stays: true}
}

package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// keyring is the cards: which there are, what keys are on them, and who may use one now. Only one request at a time touches a card.
type keyring struct {
	cards Cards
	log   *slog.Logger
	busy  time.Duration // how long a busy card is tried for

	mu      sync.Mutex
	readers map[string]*slot // by reader; as many as there are cards, and those in use
}

// slot is a reader with a card in it.
type slot struct {
	turn    chan struct{} // holds a token while nobody uses the card
	waiting int           // of keyring.mu: who waits for the token or has it

	known bool      // of keyring.mu: keys are those of info
	read  time.Time // of keyring.mu: when
	info  CardInfo
	keys  []Key
}

// placed is a key and the card it is on.
type placed struct {
	Key
	card CardInfo
}

func newKeyring(cards Cards, log *slog.Logger, busy time.Duration) *keyring {
	return &keyring{cards: cards, log: log, busy: busy, readers: map[string]*slot{}}
}

// list returns the keys of all cards that are plugged in now. A card that does not answer is left out, and the log says why.
func (k *keyring) list(ctx context.Context) (all []placed, refusal *Refusal) {
	cards, err := k.cards.Cards(ctx)
	if err != nil {
		return nil, refuse(ReasonCardsUnavailable, "looking for cards: %w", err).hint("bastion-agent doctor finds why")
	}
	if len(cards) > maxCards {
		k.log.Warn("more cards than are looked at", "cards", len(cards), "most", maxCards)
		cards = cards[:maxCards]
	}
	k.forget(cards)
	for _, info := range cards {
		keys, refusal := k.keys(ctx, info)
		if ctx.Err() != nil {
			return nil, refusalOf(info, context.Cause(ctx), context.Cause(ctx))
		}
		if refusal != nil {
			k.log.Warn("card left out", "card", info.String(), "reason", refusal.Reason, "error", refusal)
			continue
		}
		for _, key := range keys {
			all = append(all, placed{key, info})
		}
	}
	return all, nil
}

// forget drops what is known of cards that are not there any more.
func (k *keyring) forget(cards []CardInfo) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for reader, s := range k.readers {
		i := slices.IndexFunc(cards, func(c CardInfo) bool { return c.Reader == reader })
		if i < 0 || cards[i] != s.info {
			s.known, s.keys = false, nil
		}
		if i < 0 && s.waiting == 0 {
			delete(k.readers, reader)
		}
	}
}

// remembered returns the keys of a card that has not changed since they were read. They count for a moment, since it does not show from outside
// that another program made a key on the card, and as long as the card is in use here. Of a card that cannot say so they count while it is in use
// here: it is there, then.
func (k *keyring) remembered(info CardInfo) ([]Key, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.readers[info.Reader]
	if s == nil || !s.known || s.info != info || info.State == "" && len(s.turn) == 1 {
		return nil, false
	}
	return s.keys, time.Since(s.read) < rememberFor || len(s.turn) == 0
}

// readMeanwhile is remembered for who has waited for the card's turn.
func (k *keyring) readMeanwhile(s *slot, info CardInfo) ([]Key, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return s.keys, s.known && s.info == info && info.State != "" && time.Since(s.read) < rememberFor
}

// keys reads a card's keys, unless they are known.
func (k *keyring) keys(ctx context.Context, info CardInfo) ([]Key, *Refusal) {
	if keys, ok := k.remembered(info); ok {
		return keys, nil
	}
	wait, cancel := context.WithTimeoutCause(ctx, listWait, ErrBusy)
	defer cancel()
	s, release, refusal := k.take(wait, info)
	if refusal != nil {
		return nil, refusal
	}
	if keys, ok := k.readMeanwhile(s, info); ok {
		release()
		return keys, nil
	}
	keys, err := answer(wait, func(ctx context.Context) (keys []Key, err error) {
		card, err := k.cards.Open(ctx, info)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, card.Close()) }()
		return card.Keys()
	}, release)
	if err != nil {
		return nil, refusalOf(info, err, context.Cause(wait))
	}
	keys = slices.DeleteFunc(slices.Clone(keys), func(key Key) bool { return key.Public == nil })
	if len(keys) > maxKeys {
		k.log.Warn("more keys than are looked at", "card", info.String(), "keys", len(keys), "most", maxKeys)
		keys = keys[:maxKeys]
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	s.known, s.info, s.keys, s.read = true, info, keys, time.Now()
	return keys, nil
}

// take waits for a card's turn. release gives it back, once, whoever calls it.
func (k *keyring) take(ctx context.Context, info CardInfo) (s *slot, release func(), refusal *Refusal) {
	k.mu.Lock()
	if s = k.readers[info.Reader]; s == nil {
		s = &slot{turn: make(chan struct{}, 1)}
		s.turn <- struct{}{}
		k.readers[info.Reader] = s
	}
	if s.waiting > maxWaiting {
		k.mu.Unlock()
		return nil, nil, refuse(ReasonCardBusy, "%s: %d requests wait for it already", info, maxWaiting).hint("touch it, or take back what waits")
	}
	s.waiting++
	k.mu.Unlock()
	left := func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		s.waiting--
	}
	select {
	case <-s.turn:
		return s, sync.OnceFunc(func() {
			left()
			s.turn <- struct{}{}
		}), nil
	case <-ctx.Done():
		left()
		return nil, nil, refusalOf(info, context.Cause(ctx), context.Cause(ctx))
	}
}

// answer runs f, which may be stuck in a card, and does not wait for it longer than ctx. In that case the card's turn is not over before f
// is: release is called then.
func answer[T any](ctx context.Context, f func(context.Context) (T, error), release func()) (T, error) {
	type result struct {
		value T
		err   error
	}
	results := make(chan result, 1)
	go func() {
		var r result
		defer func() {
			if p := recover(); p != nil {
				r.err = fmt.Errorf("internal error: %v", p)
			}
			release()
			results <- r
		}()
		r.value, r.err = f(ctx)
	}()
	select {
	case r := <-results:
		return r.value, r.err
	case <-ctx.Done():
		var none T
		return none, context.Cause(ctx)
	}
}

// open opens a card, trying again for a while where another program has it.
func (k *keyring) open(ctx context.Context, info CardInfo) (Card, error) {
	deadline := time.Now().Add(k.busy)
	for pause := busyFirst; ; pause = min(2*pause, busyLast) {
		card, err := k.cards.Open(ctx, info)
		if err == nil || !errors.Is(err, ErrBusy) || !time.Now().Add(pause).Before(deadline) {
			return card, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}

// find says on which plugged card a key is.
func (k *keyring) find(ctx context.Context, blob []byte) (placed, bool, *Refusal) {
	all, refusal := k.list(ctx)
	if refusal != nil {
		return placed{}, false, refusal
	}
	for _, p := range all {
		if bytes.Equal(p.Public.Marshal(), blob) {
			return p, true, nil
		}
	}
	return placed{}, false, nil
}

// verify sees that the card has signed what it was asked to, with the key that it was asked for: a swapped card does not.
func verify(key ssh.PublicKey, data []byte, sig *ssh.Signature) error {
	if sig == nil {
		return errors.New("no signature")
	}
	return key.Verify(data, sig)
}

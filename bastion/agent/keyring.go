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

	gaveUp time.Time // of keyring.mu: when a use of ours was given up last while the card was at work

	known bool      // of keyring.mu: keys are those of info
	read  time.Time // of keyring.mu: when
	info  CardInfo
	keys  []placed
}

// placed is a key and the card it is on, with the serial number that the card itself named: it is opened again with that one alone.
type placed struct {
	Key
	card CardInfo
}

func newKeyring(cards Cards, log *slog.Logger, busy time.Duration) *keyring {
	return &keyring{cards: cards, log: log, busy: busy, readers: map[string]*slot{}}
}

// plugged are the cards that there are now.
func (k *keyring) plugged(ctx context.Context) ([]CardInfo, *Refusal) {
	cards, err := k.cards.Cards(ctx)
	if err != nil {
		return nil, refuse(ReasonCardsUnavailable, "looking for cards: %w", err).hint("bastion-agent doctor finds why")
	}
	if len(cards) > maxCards {
		k.log.Warn("more cards than are looked at", "cards", len(cards), "most", maxCards)
		cards = cards[:maxCards]
	}
	k.forget(cards)
	return cards, nil
}

// list returns the keys of all cards that are plugged in now. A card that does not answer is left out, and the log says why.
func (k *keyring) list(ctx context.Context) (all []placed, refusal *Refusal) {
	cards, refusal := k.plugged(ctx)
	if refusal != nil {
		return nil, refusal
	}
	all, _, refusal = k.read(ctx, cards, listWait)
	return all, refusal
}

// read returns the keys of these cards; left is why the first of those was left out that others keep.
func (k *keyring) read(ctx context.Context, cards []CardInfo, patience time.Duration) (all []placed, left, refusal *Refusal) {
	type result struct {
		keys    []placed
		refusal *Refusal
	}
	results := make([]result, len(cards))
	var reading sync.WaitGroup // of all at once: one that keeps us waiting is one too many
	for i, info := range cards {
		reading.Go(func() { results[i].keys, results[i].refusal = k.keys(ctx, info, patience) })
	}
	reading.Wait()
	for i, r := range results {
		switch {
		case ctx.Err() != nil:
			return nil, nil, refusalOf(cards[i], context.Cause(ctx), context.Cause(ctx))
		case r.refusal != nil:
			k.log.Warn("card left out", "card", cards[i].String(), "reason", r.refusal.Reason, "error", r.refusal)
			if left == nil && r.refusal.Reason == ReasonCardBusy {
				left = r.refusal
			}
		}
		all = append(all, r.keys...)
	}
	return all, left, nil
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

// remembered returns the keys of a card that has not changed since they were read. They are fresh for a moment, since it does not show from
// outside that another program made a key on the card, and as long as the card is in use here. Of a card that cannot say whether it changed they
// count while it is in use here: it is there, then.
func (k *keyring) remembered(info CardInfo) (keys []placed, known, fresh bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.readers[info.Reader]
	if s == nil || !s.known || s.info != info || info.State == "" && len(s.turn) == 1 {
		return nil, false, false
	}
	return s.keys, true, time.Since(s.read) < rememberFor || len(s.turn) == 0
}

// readMeanwhile is remembered for who has waited for the card's turn.
func (k *keyring) readMeanwhile(s *slot, info CardInfo) ([]placed, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return s.keys, s.known && s.info == info && info.State != "" && time.Since(s.read) < rememberFor
}

// keys reads a card's keys, unless they are known. Where another program keeps a card that has not changed, those that it had count; one whose keys
// were never read is tried again for as long as patience goes.
func (k *keyring) keys(ctx context.Context, info CardInfo, patience time.Duration) ([]placed, *Refusal) {
	last, known, fresh := k.remembered(info)
	if fresh {
		return last, nil
	}
	wait, cancel := context.WithTimeoutCause(ctx, patience, ErrBusy)
	defer cancel()
	s, release, refusal := k.take(wait, info)
	if refusal != nil {
		if known && ctx.Err() == nil {
			return last, nil
		}
		return nil, refusal
	}
	if keys, ok := k.readMeanwhile(s, info); ok {
		release()
		return keys, nil
	}
	tries := patience
	if known {
		tries = 0
	}
	keys, err := answer(wait, func(ctx context.Context) (keys []placed, err error) {
		card, err := k.open(ctx, info, tries)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, card.Close()) }()
		return k.readKeys(info, card)
	}, release)
	switch {
	case errors.Is(err, ErrBusy) && known && ctx.Err() == nil:
		k.log.Info("a card is kept by another program: its keys are those that it had", "card", info.String())
		return last, nil
	case err != nil:
		return nil, refusalOf(info, err, context.Cause(wait))
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	s.known, s.info, s.keys, s.read = true, info, keys, time.Now()
	return keys, nil
}

// readKeys asks an open card.
func (k *keyring) readKeys(info CardInfo, card Card) (all []placed, err error) {
	keys, err := card.Keys()
	if err != nil {
		return nil, err
	}
	if len(keys) > maxKeys {
		k.log.Warn("more keys than are looked at", "card", info.String(), "keys", len(keys), "most", maxKeys)
		keys = keys[:maxKeys]
	}
	if info.Serial == 0 {
		info.Serial = card.Serial()
	}
	for _, key := range keys {
		if key.Public != nil {
			all = append(all, placed{key, info})
		}
	}
	return all, nil
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
func (k *keyring) open(ctx context.Context, info CardInfo, patience time.Duration) (Card, error) {
	deadline := time.Now().Add(patience)
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

// givenUp remembers that a use of a card was given up, which the card does not notice before its time for a touch is over.
func (k *keyring) givenUp(s *slot) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s.gaveUp = time.Now()
}

// ourOwn is whether a card that was busy from then on was so with a use of ours that had been given up.
func (k *keyring) ourOwn(s *slot, from time.Time) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return !s.gaveUp.IsZero() && from.Sub(s.gaveUp) < touchWindow
}

// find says on which plugged card a key is. What is remembered of an unchanged card is enough for that: it is the card that signs. Where it is on none,
// and a card was left out because another program keeps it, that is the refusal: the key may be on that card.
func (k *keyring) find(ctx context.Context, blob []byte, patience time.Duration) (placed, bool, *Refusal) {
	cards, refusal := k.plugged(ctx)
	if refusal != nil {
		return placed{}, false, refusal
	}
	is := func(p placed) bool { return bytes.Equal(p.Public.Marshal(), blob) }
	for _, info := range cards {
		keys, _, _ := k.remembered(info)
		if i := slices.IndexFunc(keys, is); i >= 0 {
			return keys[i], true, nil
		}
	}
	all, left, refusal := k.read(ctx, cards, patience)
	if i := slices.IndexFunc(all, is); i >= 0 {
		return all[i], true, nil
	}
	if refusal == nil {
		refusal = left
	}
	return placed{}, false, refusal
}

// verify sees that the card has signed what it was asked to, with the key that it was asked for: a swapped card does not.
func verify(key ssh.PublicKey, data []byte, sig *ssh.Signature) error {
	if sig == nil {
		return errors.New("no signature")
	}
	return key.Verify(data, sig)
}

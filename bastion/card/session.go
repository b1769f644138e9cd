package card

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"golang.org/x/crypto/ssh"

	"mayfly/bastion/agent"
)

// maxPINs bounds how often one signature asks for a PIN. The card counts as well.
const maxPINs = 16

// session is an open card as the agent uses one.
type session struct {
	token  Token
	serial uint32
}

var _ agent.Card = (*session)(nil)

// open opens the card that info names, and no other: by its serial number, or as long as that is not known by the reader's state.
func open(ctx context.Context, reach Reach, info agent.CardInfo) (*session, error) {
	t, err := reach.Open(ctx, info.Reader)
	if err != nil {
		return nil, cause(err)
	}
	serial, err := t.Serial()
	switch {
	case err != nil:
	case info.Serial != 0 && serial != info.Serial:
		err = fmt.Errorf("%q holds card %d by now, not %d: %w", info.Reader, serial, info.Serial, agent.ErrGone)
	case info.Serial == 0 && info.State != "":
		err = unchanged(ctx, reach, info)
	}
	if err != nil {
		t.Close()
		return nil, cause(err)
	}
	return &session{token: t, serial: serial}, nil
}

// unchanged is an error where a card came or went in the reader since info was read.
func unchanged(ctx context.Context, reach Reach, info agent.CardInfo) error {
	readers, err := reach.Readers(ctx)
	if err != nil {
		return err
	}
	for _, r := range readers {
		if r.Name == info.Reader && r.State == info.State {
			return nil
		}
	}
	return fmt.Errorf("%q holds another card by now: %w", info.Reader, agent.ErrGone)
}

func (s *session) Serial() uint32 { return s.serial }

// holds is an error where the slot does not hold the key: a PIN is not asked for then, since it would be another card's.
func (s *session) holds(slot Slot, public ssh.PublicKey) error {
	info, err := read(s.token, slot)
	switch {
	case FaultOf(err) == NoKey:
		return fmt.Errorf("slot %s holds no key by now: %w", slot, agent.ErrGone)
	case err != nil:
		return cause(err)
	}
	if is, err := SSHKey(info.Public); err != nil || !bytes.Equal(is.Marshal(), public.Marshal()) {
		return fmt.Errorf("slot %s holds another key by now: %w", slot, agent.ErrGone)
	}
	return nil
}

// Keys lists those that a fleet may take: the others are of no use to SSH.
func (s *session) Keys() ([]agent.Key, error) {
	var keys []agent.Key
	for _, slot := range serving() {
		info, err := read(s.token, slot)
		if err != nil {
			if stays(err) {
				continue
			}
			return nil, cause(err)
		}
		public, err := SSHKey(info.Public)
		if err != nil {
			continue
		}
		keys = append(keys, agent.Key{Public: public, Slot: slot.String(), Comment: comment(s.serial, slot), Touch: info.Touch != Never})
	}
	return keys, nil
}

func (s *session) Sign(_ context.Context, key agent.Key, data []byte, pin func(tries int) ([]byte, error)) (*ssh.Signature, error) {
	slot, err := ParseSlot(key.Slot)
	if err != nil {
		return nil, err
	}
	public, ok := key.Public.(ssh.CryptoPublicKey)
	if !ok {
		return nil, fmt.Errorf("slot %s: %s is no key of a card", slot, key.Public.Type())
	}
	if err := s.holds(slot, key.Public); err != nil {
		return nil, err
	}
	var refused error // by the person who was asked
	for range maxPINs {
		sig, err := Sign(s.token, slot, public.CryptoPublicKey(), data, func() (string, error) {
			tries, err := s.token.Tries()
			if err != nil {
				tries = -1
			}
			var secret []byte
			secret, refused = pin(tries)
			defer clear(secret)
			return string(secret), refused
		})
		switch {
		case err == nil:
			return sig, nil
		case refused != nil:
			return nil, refused
		case FaultOf(err) != WrongPIN || left(err) == 0:
			return nil, cause(err)
		}
	}
	return nil, cause(NewError(WrongPIN, "checking the PIN: the card did not take it %d times", maxPINs))
}

func (s *session) Close() error { return s.token.Close() }

// left is how many tries a wrong PIN leaves.
func left(err error) int {
	var e *Error
	if errors.As(err, &e) {
		return e.Left
	}
	return 0
}

// causes are the agent's names of faults.
var causes = map[Fault]error{
	Removed: agent.ErrGone, NoReader: agent.ErrGone,
	Busy:       agent.ErrBusy,
	WrongPIN:   agent.ErrPINWrong,
	BlockedPIN: agent.ErrPINBlocked,
	NoTouch:    agent.ErrNoTouch,
}

// cause wraps an error in the agent's name of it.
func cause(err error) error {
	f := FaultOf(err)
	if f == WrongPIN && left(err) == 0 {
		f = BlockedPIN
	}
	if c, ok := causes[f]; ok && !errors.Is(err, c) {
		return &caused{err, c}
	}
	return err
}

// caused is an error with the agent's name of its cause.
type caused struct{ err, cause error }

func (c *caused) Error() string   { return c.err.Error() }
func (c *caused) Unwrap() []error { return []error{c.err, c.cause} }

package agent

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/crypto/ssh"
)

// Cards finds smart cards and opens them. Each method is called by many goroutines at once.
type Cards interface {
	// Cards lists what is plugged in, without asking anything of the cards that could disturb another program. No reader at all is an
	// empty list; an error says that cards cannot be reached (pcscd is not there).
	Cards(ctx context.Context) ([]CardInfo, error)
	// Open opens the very card that info names and nothing else: where its reader is empty or holds another card by now the error wraps
	// ErrGone, where another program keeps it to itself ErrBusy (it is then tried again for a while). The agent holds at most one Card
	// of each reader open, closes it when what it was opened for is done, and so keeps no program away from it.
	Open(ctx context.Context, info CardInfo) (Card, error)
}

// CardInfo names a plugged card.
type CardInfo struct {
	Reader string // the reader's name, unique among those there are
	Serial uint32 // 0: not known before it is opened; it is what counts, then, in place of State
	Name   string // what people call it, for prompts: "YubiKey 5 NFC"; "" if not known
	State  string // changes whenever a card comes or goes in this reader; "" is never the same, so that nothing of the card is remembered
}

// String names the card for people and logs.
func (c CardInfo) String() string {
	name := c.Name
	if name == "" {
		name = "card"
	}
	if c.Serial != 0 {
		return fmt.Sprintf("%s %d", name, c.Serial)
	}
	return fmt.Sprintf("%s in %s", name, shown(c.Reader)) // a device says what its reader is called
}

// Card is one open card, used by one goroutine.
type Card interface {
	// Serial is what the card itself says that it is; 0: it says nothing.
	Serial() uint32
	// Keys reads the keys that can sign for SSH. A card without any is an empty list.
	Keys() ([]Key, error)
	// Sign signs data, of which it takes the digest itself, with a key that Keys has listed. Where the card wants a PIN it calls pin with
	// the tries that are left (negative: not known), and again if the card did not take the answer; an error of pin is returned as it is.
	// The caller wipes the answer as soon as Sign returns: what needs it longer is not to exist. Sign may wait for a touch as long as the
	// card does. When ctx ends it returns as soon as the card lets it.
	// It asks for no PIN where the slot does not hold that key: the error wraps ErrGone.
	// Errors wrap ErrGone, ErrBusy, ErrPINWrong, ErrPINBlocked or ErrNoTouch where one of these is the cause.
	Sign(ctx context.Context, key Key, data []byte, pin func(tries int) (secret []byte, err error)) (*ssh.Signature, error)
	Close() error
}

// Key is a key on a card.
type Key struct {
	Public  ssh.PublicKey
	Slot    string // "9a"
	Comment string // what ssh-add -l shows beside it
	Touch   bool   // each signature takes a touch, or may
}

// Causes that a Card tells apart.
var (
	ErrGone       = errors.New("the card was taken out")
	ErrBusy       = errors.New("another program keeps the card to itself")
	ErrPINWrong   = errors.New("the card did not take the PIN")
	ErrPINBlocked = errors.New("the card's PIN is blocked")
	ErrNoTouch    = errors.New("nobody touched the card")
)

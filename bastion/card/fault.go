package card

import (
	"errors"
	"fmt"

	"mayfly/internal/hint"
)

// Fault is why a card did not do what it was asked, for programs.
type Fault string

const (
	NoService  Fault = "no_service"     // nothing answers for PC/SC: pcscd does not run
	Denied     Fault = "service_denied" // pcscd does not let this user at cards
	NoReader   Fault = "no_reader"
	Removed    Fault = "card_removed" // it was pulled, or there is none
	Busy       Fault = "card_busy"    // another program has it for itself
	NoPIV      Fault = "no_piv"       // it has no PIV, or PIV is switched off
	WrongPIN   Fault = "wrong_pin"
	BlockedPIN Fault = "pin_blocked"
	NoTouch    Fault = "no_touch" // nobody touched it in time, or it refused
	NoKey      Fault = "no_key"
	Refused    Fault = "card_refused" // with a status word that stands for nothing above
	TooLong    Fault = "card_timeout" // it went on answering for too long
	Garbage    Fault = "card_garbage" // it answered what makes no sense
	NotBuilt   Fault = "built_without_pcsc"
)

// says are sentences about faults of the way to a card.
var says = map[Fault]string{
	NoService: "nothing answers for smart cards: pcscd does not run",
	Denied:    "pcscd does not let this user at smart cards",
	NoReader:  "there is no reader",
	Removed:   "the card was taken out",
	Busy:      "another program has the card for itself",
	Garbage:   "the card does not answer as a card does",
	TooLong:   "the card took too long",
}

// Says is a sentence about a fault of the way to a card.
func Says(f Fault) string { return says[f] }

// mends are what to do about a fault.
var mends = map[Fault]string{
	NoService:  "apt-get install pcscd libccid; systemctl enable --now pcscd.socket",
	Denied:     "log in at the machine itself, or let this user in by a polkit rule for org.debian.pcsc-lite.access_pcsc and access_card",
	NoReader:   "plug the key in; if it is, switch its CCID interface on: ykman config usb --enable PIV; gpg may have it without pcscd: gpgconf --kill scdaemon, and disable-ccid in ~/.gnupg/scdaemon.conf",
	Removed:    "put it back in, and try again",
	Busy:       "end the program that has it open: for gpg, gpgconf --kill scdaemon, until gpg wants a card again, and disable-scdaemon in ~/.gnupg/gpg-agent.conf where it never shall; pcsc-shared does not help, since the agent needs the card alone; a browser with a card module keeps it until it ends",
	NoPIV:      "switch PIV on: ykman config usb --enable PIV; or plug in a card that has it",
	WrongPIN:   "try again with the right PIN: after the last try it is blocked",
	BlockedPIN: "unblock it with the PUK: ykman piv access unblock-pin, or yubico-piv-tool -a unblock-pin",
	NoTouch:    "try again, and touch the key while it blinks",
	NoKey:      "bastion-agent setup makes a key; bastion-agent keys lists what there is",
	Refused:    "pull the card, put it back in, and try again; bastion-agent doctor looks at it",
	TooLong:    "pull the card, put it back in, and try again",
	Garbage:    "pull the card, put it back in, and try again; if it stays so, do not use this card",
	NotBuilt:   "build it with cgo and the tag: CGO_ENABLED=1 go build -tags pcsc ./bastion/cmd/bastion-agent (needs gcc, pkg-config and libpcsclite-dev)",
}

// Error is a fault with its cause.
type Error struct {
	Fault  Fault
	Left   int    // tries, with WrongPIN
	Status uint16 // the card's status word, with Refused
	Err    error
}

func (e *Error) Error() string {
	switch {
	case e.Fault == WrongPIN && e.Left == 1:
		return fmt.Sprintf("%v: 1 try left: a wrong one now blocks it", e.Err)
	case e.Fault == WrongPIN:
		return fmt.Sprintf("%v: %d tries left", e.Err, e.Left)
	}
	return e.Err.Error()
}

func (e *Error) Unwrap() error { return hint.New(e.Err, "%s", mends[e.Fault]) }

func fault(f Fault, err error) error { return &Error{Fault: f, Err: err} }

// NewError is an error of an implementation of Reach or Token.
func NewError(f Fault, format string, args ...any) *Error {
	return &Error{Fault: f, Err: fmt.Errorf(format, args...)}
}

// FaultOf returns an error's fault, or "".
func FaultOf(err error) Fault {
	var e *Error
	if errors.As(err, &e) {
		return e.Fault
	}
	return ""
}

// StatusOf returns the status word with which a card refused, or 0.
func StatusOf(err error) uint16 {
	var e *Error
	if errors.As(err, &e) {
		return e.Status
	}
	return 0
}

package card

import (
	"context"
	"crypto"
	"fmt"
	"strconv"
	"strings"
	"unicode"
)

// Reader is one slot for a card that PC/SC knows.
type Reader struct {
	Name      string
	Present   bool   // a card is in it
	Mute      bool   // which does not answer to being powered
	Exclusive bool   // which another program has for itself
	InUse     bool   // which another program has open
	State     string // changes whenever a card comes or goes
}

// Check refuses a reader whose name could not be shown or sent.
func (r Reader) Check() error {
	if r.Name == "" || len(r.Name) > maxReaderName || strings.ContainsFunc(r.Name, func(c rune) bool { return !unicode.IsPrint(c) }) {
		return fmt.Errorf("reader %.40q: its name is none", r.Name)
	}
	return nil
}

// Reach is the way to cards. What it opens is held by nobody else until it is closed.
type Reach interface {
	Readers(ctx context.Context) ([]Reader, error)
	// Open waits for no person: it fails where another program has the card.
	Open(ctx context.Context, reader string) (Token, error)
	// Secrets asks what the card says of PIN, PUK and management key, without trying any of them.
	Secrets(ctx context.Context, reader string) (Secrets, error)
}

// Token is an open card. Its errors are *Error where this package can tell what they mean.
type Token interface {
	Firmware() Version
	Serial() (uint32, error)
	Tries() (int, error) // left for the PIN

	VerifyPIN(pin string) error
	SetPIN(old, pin string) error
	SetPUK(old, puk string) error
	// SetTries makes PIN and PUK the factory's as well.
	SetTries(management []byte, pin string, pinTries, pukTries int) error
	// StoredManagement is the management key that is kept under the PIN; nil if none is.
	StoredManagement(pin string) ([]byte, error)
	StoreManagement(management []byte, pin string, kept []byte) error
	SetManagement(old, management []byte) error
	Reset() error // destroys all keys

	Info(slot Slot) (Info, error)
	Generate(management []byte, slot Slot, algorithm Algorithm) (crypto.PublicKey, error) // touch Always, PIN once
	Certificate(slot Slot) ([]byte, error)                                                // DER
	SetCertificate(management []byte, slot Slot, der []byte) error
	Attest(slot Slot) ([]byte, error)   // DER
	DeviceCertificate() ([]byte, error) // DER
	// Sign signs a digest, or with Ed25519 the message itself. It asks for the PIN only if the card does.
	Sign(slot Slot, public crypto.PublicKey, data []byte, hash crypto.Hash, pin func() (string, error)) ([]byte, error)

	Close() error
}

// Bounds of what a card may say (implementation constants).
const (
	MaxCertificate = 8 << 10 // bytes; a slot's object holds about 3 KiB
	MaxReaders     = 32
	maxReaderName  = 128
)

// Version is a firmware's.
type Version struct{ Major, Minor, Patch int }

func (v Version) String() string { return fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Patch) }

// Before reports whether v is older.
func (v Version) Before(w Version) bool {
	switch {
	case v.Major != w.Major:
		return v.Major < w.Major
	case v.Minor != w.Minor:
		return v.Minor < w.Minor
	}
	return v.Patch < w.Patch
}

// ParseVersion reads "5.7.0".
func ParseVersion(s string) (Version, error) {
	parts := strings.Split(s, ".")
	var n [3]int
	if len(parts) != len(n) {
		return Version{}, fmt.Errorf("version %q: want MAJOR.MINOR.PATCH", s)
	}
	for i, p := range parts {
		u, err := strconv.ParseUint(p, 10, 8)
		if err != nil {
			return Version{}, fmt.Errorf("version %q: want MAJOR.MINOR.PATCH", s)
		}
		n[i] = int(u)
	}
	return Version{n[0], n[1], n[2]}, nil
}

// Firmware at which cards began to do something.
var (
	firmwareMetadata = Version{5, 3, 0} // to say what a key and a secret are
	firmwareEd25519  = Version{5, 7, 0}
)

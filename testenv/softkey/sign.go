package softkey

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"
)

// Touch says whether the imagined finger lies on the key.
type Touch string

const (
	Always Touch = "always"

	Verified Touch = "verified" // the finger, and a PIN: signatures say so too
	Never    Touch = "never"    // signatures lack the user presence flag; a server must refuse them
)

// UnmarshalText makes Touch a flag; only the three words are one.
func (t *Touch) UnmarshalText(text []byte) error {
	switch v := Touch(text); v {
	case Always, Never, Verified:
		*t = v
		return nil
	}
	return fmt.Errorf("touch %q: want %q, %q or %q", text, Always, Verified, Never)
}

// MarshalText is UnmarshalText's inverse.
func (t Touch) MarshalText() ([]byte, error) { return []byte(t), nil }

// Bits of an authenticator's flags (WebAuthn, section 6.1).
const (
	flagUserPresence     = 0x01
	flagUserVerification = 0x04
)

type signer struct {
	key     *Key
	touch   Touch
	counter atomic.Uint32
}

var _ ssh.Signer = &signer{}

// Signer signs with the key. Its counter begins at the clock so that it rises from one process to the next.
func (k *Key) Signer(touch Touch) ssh.Signer {
	s := &signer{key: k, touch: touch}
	s.counter.Store(uint32(time.Now().Unix()))
	return s
}

func (s *signer) PublicKey() ssh.PublicKey { return s.key.public }

// Sign makes a signature as in PROTOCOL.u2f, "SSH U2F signatures".
func (s *signer) Sign(_ io.Reader, message []byte) (*ssh.Signature, error) {
	var flags byte
	switch s.touch {
	case Always:
		flags = flagUserPresence
	case Verified:
		flags = flagUserPresence | flagUserVerification
	}
	application, digest := sha256.Sum256([]byte(Application)), sha256.Sum256(message)
	tail := binary.BigEndian.AppendUint32([]byte{flags}, s.counter.Add(1))

	signed := append(application[:], tail...)
	signed = append(signed, digest[:]...)
	return &ssh.Signature{Format: KeyType, Blob: ed25519.Sign(s.key.private, signed), Rest: tail}, nil
}

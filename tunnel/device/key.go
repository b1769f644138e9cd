package device

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
)

// Key is a WireGuard key: private, public or preshared.
type Key [32]byte

// ErrBadKey is what every refusal of a key wraps.
var ErrBadKey = errors.New("not a usable WireGuard key")

// NewPrivateKey makes a private key.
func NewPrivateKey() (Key, error) {
	private, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return Key{}, fmt.Errorf("making a private key: %w", err)
	}
	k := Key(private.Bytes())
	k[0] &= 248 // curve25519 clamps anyway; wg prints keys in this form
	k[31] = k[31]&127 | 64
	return k, nil
}

// NewPresharedKey makes 32 random bytes.
func NewPresharedKey() Key {
	var k Key
	rand.Read(k[:])
	return k
}

// Public returns the public half of a private key.
func (k Key) Public() Key {
	private, err := ecdh.X25519().NewPrivateKey(k[:])
	if err != nil {
		panic("tunnel: internal error: X25519 takes any 32 bytes")
	}
	return Key(private.PublicKey().Bytes())
}

// IsZero tells a key that was never set.
func (k Key) IsZero() bool { return k == Key{} }

// Base64 is the form that wg reads and prints.
func (k Key) Base64() string { return base64.StdEncoding.EncodeToString(k[:]) }

// String hides the key, so that printing one by mistake tells nothing.
func (k Key) String() string { return "(key)" }

// ParseKey reads the form of Base64, exactly: 44 characters, no spare bits set.
func ParseKey(s string) (Key, error) {
	var k Key
	if len(s) != base64.StdEncoding.EncodedLen(len(k)) {
		return k, fmt.Errorf("%w: %d characters, want 44", ErrBadKey, len(s))
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || len(raw) != len(k) {
		return k, fmt.Errorf("%w: not base64 of 32 bytes", ErrBadKey)
	}
	return Key(raw), nil
}

// ParsePublicKey reads a public key and refuses the points of low order, with which every shared secret is zero.
func ParsePublicKey(s string) (Key, error) {
	k, err := ParseKey(s)
	if err != nil {
		return k, err
	}
	public, err := ecdh.X25519().NewPublicKey(k[:])
	if err != nil {
		return Key{}, fmt.Errorf("%w: %w", ErrBadKey, err)
	}
	probe, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return Key{}, err
	}
	if _, err := probe.ECDH(public); err != nil {
		return Key{}, fmt.Errorf("%w: a point of low order", ErrBadKey)
	}
	return k, nil
}

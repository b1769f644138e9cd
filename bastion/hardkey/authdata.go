package hardkey

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// Specification constants: Web Authentication, section 6.1.
const (
	flagPresent        = 0x01 // UP: touched when it was made
	flagVerified       = 0x04 // UV
	flagBackupEligible = 0x08 // BE: it may be copied off the authenticator
	flagBackedUp       = 0x10 // BS: it was
	flagAttested       = 0x40 // AT: a key's data follow
	flagExtensions     = 0x80 // ED

	aaguidSize = 16
	headSize   = 32 + 1 + 4 + aaguidSize + 2 // up to the credential's ID
)

// noAAGUID is what authenticators say that name no model.
const noAAGUID = "00000000-0000-0000-0000-000000000000"

// COSE's numbers (RFC 9053).
const (
	coseOKP     = 1
	coseEC2     = 2
	coseEdDSA   = -8
	coseES256   = -7
	coseP256    = 1
	coseEd25519 = 6

	coordinate = 32 // bytes
)

// Values of credProtect (CTAP 2.1, section 12.1).
const (
	protectOptional = 1
	protectRequired = 3 // nothing is signed without user verification
)

// maxCredential bounds a credential's ID (Web Authentication, section 4).
const maxCredential = 1023

// authData is what an authenticator says of a key that it has just made.
type authData struct {
	rpIDHash    [32]byte
	flags       byte
	aaguid      [aaguidSize]byte
	key         coseKey
	credProtect int // 0: not said
}

// coseKey is a public key; y is P-256's only.
type coseKey struct {
	Type      int    `cbor:"1,keyasint"`
	Algorithm int    `cbor:"3,keyasint"`
	Curve     int    `cbor:"-1,keyasint"`
	X         []byte `cbor:"-2,keyasint"`
	Y         []byte `cbor:"-3,keyasint,omitempty"`
}

// raw is the key as SSH has it: Ed25519's 32 bytes, or P-256's uncompressed point.
func (k coseKey) raw() ([]byte, error) {
	switch {
	case k.Type == coseOKP && k.Algorithm == coseEdDSA && k.Curve == coseEd25519 && len(k.X) == coordinate && k.Y == nil:
		return k.X, nil
	case k.Type == coseEC2 && k.Algorithm == coseES256 && k.Curve == coseP256 && len(k.X) == coordinate && len(k.Y) == coordinate:
		return append(append([]byte{4}, k.X...), k.Y...), nil
	}
	return nil, fmt.Errorf("key of type %d, algorithm %d, curve %d is neither Ed25519 nor P-256", k.Type, k.Algorithm, k.Curve)
}

// parseAuthData reads all of data. Its extensions beside credProtect say nothing that matters here and are left alone.
func parseAuthData(data []byte) (authData, error) {
	if len(data) < headSize {
		return authData{}, fmt.Errorf("%d bytes, fewer than the %d of a new key", len(data), headSize)
	}
	a := authData{rpIDHash: [32]byte(data), flags: data[32], aaguid: [aaguidSize]byte(data[37:])}
	if a.flags&flagAttested == 0 {
		return authData{}, errors.New("holds no new key")
	}
	size := int(binary.BigEndian.Uint16(data[headSize-2:]))
	data = data[headSize:]
	if size > maxCredential || size > len(data) {
		return authData{}, fmt.Errorf("a credential ID of %d bytes", size)
	}
	rest, err := first(data[size:], &a.key)
	if err != nil {
		return authData{}, fmt.Errorf("the key: %w", err)
	}
	if a.flags&flagExtensions != 0 {
		extensions := map[string]cbor.RawMessage{}
		if rest, err = first(rest, &extensions); err != nil {
			return authData{}, fmt.Errorf("the extensions: %w", err)
		}
		for name, value := range extensions { // which were copied as they are
			var said any
			if _, err := first(value, &said); err != nil {
				return authData{}, fmt.Errorf("the extension %q: %w", clip(name), err)
			}
		}
		if value, ok := extensions["credProtect"]; ok {
			if _, err := first(value, &a.credProtect); err != nil {
				return authData{}, fmt.Errorf("credProtect: %w", err)
			}
			if a.credProtect < protectOptional || a.credProtect > protectRequired {
				return authData{}, fmt.Errorf("credProtect %d, which nobody knows", a.credProtect)
			}
		}
	}
	if len(rest) != 0 {
		return authData{}, fmt.Errorf("%d bytes after its end", len(rest))
	}
	return a, nil
}

// formatAAGUID writes a model's identifier as makers publish it.
func formatAAGUID(id []byte) string {
	h := hex.EncodeToString(id)
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

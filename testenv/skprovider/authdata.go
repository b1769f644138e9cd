package skprovider

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"

	"github.com/fxamacker/cbor/v2"
)

// COSE (RFC 9053) keys and algorithms.
const (
	coseES256 = -7
	coseEdDSA = -8
)

// credProtect (CTAP 2.1, section 12.1).
const (
	protectNone     = 0 // the extension is left out
	protectListed   = 2 // without PIN only for who knows the handle
	protectVerified = 3 // only with the PIN
)

var ctap = func() cbor.EncMode {
	mode, err := cbor.CTAP2EncOptions().EncMode()
	if err != nil {
		panic("skprovider: internal error: " + err.Error())
	}
	return mode
}()

// cose is the public key as authenticator data has it.
func (c *credential) cose() ([]byte, error) {
	switch key := c.signer.(type) {
	case *ecdsa.PrivateKey:
		point, err := key.PublicKey.Bytes()
		if err != nil {
			return nil, err
		}
		return ctap.Marshal(map[int]any{1: 2, 3: coseES256, -1: 1, -2: point[1:33], -3: point[33:]})
	case ed25519.PrivateKey:
		return ctap.Marshal(map[int]any{1: 1, 3: coseEdDSA, -1: 6, -2: []byte(key.Public().(ed25519.PublicKey))})
	}
	return nil, errors.New("a key of no kind")
}

// authData is authenticator data (WebAuthn level 2, section 6.1).
type authData struct {
	application string
	flags       byte
	counter     uint32
}

func (a authData) bytes() []byte {
	hash := sha256.Sum256([]byte(a.application))
	return binary.BigEndian.AppendUint32(append(hash[:], a.flags), a.counter)
}

// attested is authenticator data of a new key.
func (a authData) attested(model AAGUID, handle []byte, c *credential, protect int) ([]byte, error) {
	a.flags |= flagAttested
	if protect != protectNone {
		a.flags |= flagExtensions
	}
	key, err := c.cose()
	if err != nil {
		return nil, err
	}
	data := append(a.bytes(), model[:]...)
	data = binary.BigEndian.AppendUint16(data, uint16(len(handle)))
	data = append(append(data, handle...), key...)
	if protect == protectNone {
		return data, nil
	}
	extensions, err := ctap.Marshal(map[string]int{"credProtect": protect})
	return append(data, extensions...), err
}

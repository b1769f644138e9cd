package skprovider

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"errors"
	"math/big"
)

// Algorithm of a key (sk-api.h).
type Algorithm uint32

const (
	ECDSA   Algorithm = 0
	Ed25519 Algorithm = 1
)

// Flags of a request (sk-api.h) and of what is signed (CTAP 2.1: authenticator data).
const (
	wantPresence     = 0x01
	wantVerification = 0x04
	wantForce        = 0x10
	wantResident     = 0x20

	flagPresent    = 0x01
	flagVerified   = 0x04
	flagSyncable   = 0x08 // backup eligible, and backed up
	flagSynced     = 0x10
	flagAttested   = 0x40
	flagExtensions = 0x80
)

const (
	secretBytes = 32
	scalarBytes = 32 // of an Ed25519 seed and of a P-256 key alike
	handleBytes = 2 + scalarBytes
)

// credential is a key of this device. The device keeps no list of them: a handle is the key itself, wrapped with the device's secret
// and bound to its application.
type credential struct {
	algorithm Algorithm
	protected bool // useless without the PIN: credProtect 3
	signer    crypto.Signer
}

func newCredential(a Algorithm, protected bool) (*credential, error) {
	switch a {
	case ECDSA:
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		return &credential{algorithm: a, protected: protected, signer: key}, err
	case Ed25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return &credential{algorithm: a, protected: protected, signer: key}, err
	}
	return nil, refuse(Unsupported, "unknown algorithm %d", a)
}

// public is the form of OpenSSH's keys: 32 bytes for Ed25519, an uncompressed point for ECDSA.
func (c *credential) public() ([]byte, error) {
	switch key := c.signer.(type) {
	case *ecdsa.PrivateKey:
		return key.PublicKey.Bytes()
	case ed25519.PrivateKey:
		return key.Public().(ed25519.PublicKey), nil
	}
	return nil, errors.New("a key of no kind")
}

// sign returns what sk_api calls r and s; for Ed25519 the signature is r.
func (c *credential) sign(data []byte) (r, s []byte, err error) {
	switch key := c.signer.(type) {
	case *ecdsa.PrivateKey:
		digest := sha256.Sum256(data)
		der, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
		if err != nil {
			return nil, nil, err
		}
		var numbers struct{ R, S *big.Int }
		if _, err := asn1.Unmarshal(der, &numbers); err != nil {
			return nil, nil, err
		}
		return numbers.R.Bytes(), numbers.S.Bytes(), nil
	case ed25519.PrivateKey:
		return ed25519.Sign(key, data), nil, nil
	}
	return nil, nil, errors.New("a key of no kind")
}

func sealer(secret []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// wrap makes the credential's handle.
func (c *credential) wrap(secret []byte, application string) ([]byte, error) {
	plain := []byte{byte(c.algorithm), 0}
	if c.protected {
		plain[1] = 1
	}
	switch key := c.signer.(type) {
	case *ecdsa.PrivateKey:
		scalar, err := key.Bytes()
		if err != nil {
			return nil, err
		}
		plain = append(plain, scalar...)
	case ed25519.PrivateKey:
		plain = append(plain, key.Seed()...)
	}
	aead, err := sealer(secret)
	if err != nil {
		return nil, err
	}
	return aead.Seal(nil, nil, plain, []byte(application)), nil
}

// unwrap finds the credential of a handle. One of another device, or of another application, is none of this device's.
func unwrap(secret, handle []byte, a Algorithm, application string) (*credential, error) {
	foreign := refuse(DeviceNotFound, "not a key of this device for %q", application)
	aead, err := sealer(secret)
	if err != nil {
		return nil, err
	}
	plain, err := aead.Open(nil, nil, handle, []byte(application))
	if err != nil || len(plain) != handleBytes || Algorithm(plain[0]) != a {
		return nil, foreign
	}
	c := &credential{algorithm: a, protected: plain[1] == 1}
	switch scalar := plain[2:]; a {
	case ECDSA:
		if c.signer, err = ecdsa.ParseRawPrivateKey(elliptic.P256(), scalar); err != nil {
			return nil, foreign
		}
	case Ed25519:
		c.signer = ed25519.NewKeyFromSeed(scalar)
	default:
		return nil, foreign
	}
	return c, nil
}

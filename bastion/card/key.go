package card

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/hint"
)

// Algorithm is a kind of key.
type Algorithm string

const (
	P256    Algorithm = "p256"
	P384    Algorithm = "p384"
	Ed25519 Algorithm = "ed25519"
	Other   Algorithm = "other" // that no fleet takes
)

// ParseAlgorithm reads the name of one that a fleet takes.
func ParseAlgorithm(text string) (Algorithm, error) {
	switch a := Algorithm(text); a {
	case P256, P384, Ed25519:
		return a, nil
	}
	return "", fmt.Errorf("key type %q: want p256, p384 or ed25519", text)
}

// Values of Info, as hardkey names them.
const (
	Never, Once, Always, Cached = "never", "once", "always", "cached"
	MatchOnce, MatchAlways      = "match_once", "match_always"
	Generated, Imported         = "generated", "imported"
	Unknown                     = "unknown"
)

// Info is what a card says of a key. Only its attestation proves it.
type Info struct {
	Algorithm Algorithm
	PINPolicy string
	Touch     string
	Origin    string
	Public    crypto.PublicKey
}

// SSHKey is the public key as SSH has it, with its curve and form checked.
func SSHKey(public crypto.PublicKey) (ssh.PublicKey, error) {
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		if k == nil || k.Curve != elliptic.P256() && k.Curve != elliptic.P384() {
			return nil, errors.New("the card's key is of a curve that no fleet takes")
		}
		if _, err := k.ECDH(); err != nil { // that the point is on the curve
			return nil, fmt.Errorf("the card's key: %w", err)
		}
	case ed25519.PublicKey:
		if len(k) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("the card's key has %d bytes, want %d", len(k), ed25519.PublicKeySize)
		}
	default:
		return nil, hint.New(fmt.Errorf("the card's key is of a kind (%T) that no fleet takes", public), "bastion-agent setup makes one")
	}
	return ssh.NewPublicKey(public)
}

// algorithmOf names a public key's kind.
func algorithmOf(public crypto.PublicKey) Algorithm {
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		switch {
		case k == nil:
		case k.Curve == elliptic.P256():
			return P256
		case k.Curve == elliptic.P384():
			return P384
		}
	case ed25519.PublicKey:
		return Ed25519
	}
	return Other
}

// Sign makes the SSH signature of data by a key on the card, and verifies it: a card may answer anything.
func Sign(t Token, slot Slot, public crypto.PublicKey, data []byte, pin func() (string, error)) (*ssh.Signature, error) {
	key, err := SSHKey(public)
	if err != nil {
		return nil, fault(Garbage, err)
	}
	var hash crypto.Hash
	switch algorithmOf(public) {
	case P256:
		hash = crypto.SHA256
	case P384:
		hash = crypto.SHA384
	}
	input := data
	if hash != 0 {
		h := hash.New()
		h.Write(data)
		input = h.Sum(nil)
	}
	raw, err := t.Sign(slot, public, input, hash, pin)
	if err != nil {
		return nil, err
	}
	sig := &ssh.Signature{Format: key.Type(), Blob: raw}
	if hash != 0 { // RFC 5656, section 3.1.2
		var rs struct{ R, S *big.Int }
		if rest, err := asn1.Unmarshal(raw, &rs); err != nil || len(rest) > 0 || rs.R.Sign() <= 0 || rs.S.Sign() <= 0 {
			return nil, fault(Garbage, errors.New("the card's signature is none"))
		}
		sig.Blob = ssh.Marshal(rs)
	}
	if err := key.Verify(data, sig); err != nil {
		return nil, fault(Garbage, fmt.Errorf("the card's signature does not match its key: %w", err))
	}
	return sig, nil
}

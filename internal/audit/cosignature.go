package audit

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// Specification constants: c2sp.org/tlog-cosignature.
const (
	algCosignature  = 0x04
	cosignatureSize = 8 + ed25519.SignatureSize // time and signature
)

// cosigner checks the cosignatures of one witness.
type cosigner struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

// NewWitnessVerifier reads a witness's verifier key, NAME+HASH+BASE64, of Ed25519 cosignatures.
func NewWitnessVerifier(vkey string) (note.Verifier, error) {
	parts := strings.SplitN(vkey, "+", 3)
	if len(parts) != 3 || parts[0] == "" || strings.ContainsAny(parts[0], " \t\r\n") {
		return nil, errors.New("malformed verifier key: want NAME+HASH+KEY")
	}
	hash, err := strconv.ParseUint(parts[1], 16, 32)
	raw, err2 := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(parts[1]) != 8 || err2 != nil || len(raw) != 1+ed25519.PublicKeySize {
		return nil, errors.New("malformed verifier key: want NAME+HASH+KEY")
	}
	if raw[0] != algCosignature {
		return nil, fmt.Errorf("verifier key of type %d: a witness's is %d", raw[0], algCosignature)
	}
	id := sha256.Sum256(append([]byte(parts[0]+"\n"), raw...))
	if binary.BigEndian.Uint32(id[:]) != uint32(hash) {
		return nil, errors.New("malformed verifier key: its hash is another key's")
	}
	return cosigner{name: parts[0], hash: uint32(hash), key: raw[1:]}, nil
}

func (c cosigner) Name() string    { return c.name }
func (c cosigner) KeyHash() uint32 { return c.hash }

func (c cosigner) Verify(msg, sig []byte) bool {
	if len(sig) != cosignatureSize {
		return false
	}
	at := binary.BigEndian.Uint64(sig)
	signed := append(fmt.Appendf(nil, "cosignature/v1\ntime %d\n", at), msg...)
	return at < 1<<63 && ed25519.Verify(c.key, signed, sig[8:])
}

// cosignedAt is when a witness says that it signed.
func cosignedAt(s note.Signature) (time.Time, error) {
	raw, err := base64.StdEncoding.DecodeString(s.Base64)
	if err != nil || len(raw) != 4+cosignatureSize {
		return time.Time{}, errors.New("malformed cosignature")
	}
	return time.Unix(int64(binary.BigEndian.Uint64(raw[4:])), 0).UTC(), nil
}

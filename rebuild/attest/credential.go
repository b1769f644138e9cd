package attest

import (
	"crypto/sha256"
	"fmt"
	"io"

	"github.com/google/go-tpm/tpm2"
)

// nameAlg begins the name of an object whose public area is hashed with SHA-256.
var nameAlg = []byte{0x00, 0x0b}

// name is an object's name: what the TPM knows it by, which covers its whole public area.
func name(area []byte) []byte {
	h := sha256.Sum256(area)
	return append(nameAlg[:2:2], h[:]...)
}

// MakeCredential encrypts secret so that only the TPM of this endorsement key can read it, and only while it holds the attestation key of
// this public area. It refuses keys of another kind.
func MakeCredential(random io.Reader, ek, ak, secret []byte) (blob, encrypted []byte, err error) {
	pub, err := endorsementKey(ek)
	if err != nil {
		return nil, nil, err
	}
	if _, err := attestationKey(ak); err != nil {
		return nil, nil, err
	}
	key, err := tpm2.ImportEncapsulationKey(pub)
	if err != nil {
		return nil, nil, refuse(EKMalformed, "the endorsement key: %w", err)
	}
	blob, encrypted, err = tpm2.CreateCredential(random, key, name(ak), secret)
	if err != nil {
		return nil, nil, fmt.Errorf("encrypting a secret to a TPM: %w", err)
	}
	return blob, encrypted, nil
}

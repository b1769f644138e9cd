// Package sshsig makes and checks SSH signatures of files, as OpenSSH's PROTOCOL.sshsig defines them and as ssh-keygen -Y sign
// and -Y verify write and read them. A signature names its purpose (the namespace), so that a signature made for one thing
// says nothing about another.
//
// It accepts Ed25519, ECDSA and the two security key types (sk-ssh-ed25519, sk-ecdsa-sha2-nistp256); of a security key it asks
// that somebody touched it. It accepts no RSA, no DSA and no certificates. It knows nothing of who may sign: see policies/trust.
package sshsig

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/hint"
)

// Specification constants, PROTOCOL.sshsig.
const (
	magic   = "SSHSIG"
	version = 1
	begin   = "-----BEGIN SSH SIGNATURE-----"
	end     = "-----END SSH SIGNATURE-----"
	width   = 70 // ssh-keygen's line length
)

// Flags of a security key's signature (PROTOCOL.u2f).
const (
	flagUserPresence     = 0x01 // it was touched
	flagUserVerification = 0x04 // it knew its holder by PIN or biometry
)

// MaxBlock bounds one armored signature, in bytes.
const MaxBlock = 64 << 10

// keyTypes that may sign.
var keyTypes = []string{
	ssh.KeyAlgoED25519, ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256,
	ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521,
}

// Signature is one parsed signature, not yet verified.
type Signature struct {
	key       ssh.PublicKey
	namespace string
	reserved  string
	hash      string
	signature *ssh.Signature
}

// blob is the body of a signature file, after the magic.
type blob struct {
	Version   uint32
	PublicKey []byte
	Namespace string
	Reserved  string
	Hash      string
	Signature []byte
}

// Key is the public key that the signature claims to be made with. It means nothing before Verify.
func (s *Signature) Key() ssh.PublicKey { return s.key }

// Sign signs message for the namespace and returns an armored block, as ssh-keygen -Y sign does, with SHA-512.
func Sign(signer ssh.Signer, namespace string, message []byte) ([]byte, error) {
	if namespace == "" {
		return nil, errors.New("signing: empty namespace")
	}
	key := signer.PublicKey()
	if !slices.Contains(keyTypes, key.Type()) {
		return nil, hint.New(fmt.Errorf("signing: key type %s is not accepted", key.Type()), "use an Ed25519 or security key (ssh-keygen -t ed25519-sk)")
	}
	s := &Signature{key: key, namespace: namespace, hash: "sha512"}
	data, err := s.signed(message)
	if err != nil {
		return nil, err
	}
	if s.signature, err = signer.Sign(rand.Reader, data); err != nil {
		return nil, fmt.Errorf("signing with %s: %w", ssh.FingerprintSHA256(key), err)
	}
	if err := s.Verify(namespace, message); err != nil { // an agent may answer anything
		return nil, fmt.Errorf("checking the signature just made with %s: %w", ssh.FingerprintSHA256(key), err)
	}
	return s.Armor(), nil
}

// Verify checks the signature over message for the namespace. A security key must have been touched.
func (s *Signature) Verify(namespace string, message []byte) error {
	if namespace == "" || s.namespace != namespace {
		return fmt.Errorf("signature is for namespace %q, not %q", s.namespace, namespace)
	}
	if s.signature.Format != s.key.Type() {
		return fmt.Errorf("signature of type %s by a key of type %s", s.signature.Format, s.key.Type())
	}
	if err := checkPresence(s.key.Type(), s.signature.Rest); err != nil {
		return err
	}
	data, err := s.signed(message)
	if err != nil {
		return err
	}
	if err := s.key.Verify(data, s.signature); err != nil {
		return fmt.Errorf("signature by %s does not match: %w", ssh.FingerprintSHA256(s.key), err)
	}
	return nil
}

// checkPresence asks of a security key's signature the flag that it was touched, and of any other that nothing trails it.
func checkPresence(keyType string, rest []byte) error {
	if !strings.HasPrefix(keyType, "sk-") {
		if len(rest) != 0 {
			return errors.New("signature has trailing data")
		}
		return nil
	}
	if len(rest) != 5 { // flags and counter
		return errors.New("security key signature has no flags")
	}
	if rest[0]&flagUserPresence == 0 {
		return errors.New("security key was not touched")
	}
	return nil
}

// UserVerified reports whether a security key says in this signature that its holder was verified, by PIN or biometry. It means nothing before
// Verify has returned no error.
func (s *Signature) UserVerified() bool {
	return strings.HasPrefix(s.key.Type(), "sk-") && len(s.signature.Rest) == 5 && s.signature.Rest[0]&flagUserVerification != 0
}

// signed returns what the key signs: magic, namespace, reserved, hash name and the message's hash (PROTOCOL.sshsig, section 3).
func (s *Signature) signed(message []byte) ([]byte, error) {
	var sum []byte
	switch s.hash {
	case "sha512":
		h := sha512.Sum512(message)
		sum = h[:]
	case "sha256":
		h := sha256.Sum256(message)
		sum = h[:]
	default:
		return nil, fmt.Errorf("unknown hash %q", s.hash)
	}
	return append([]byte(magic), ssh.Marshal(struct {
		Namespace, Reserved, Hash string
		Sum                       []byte
	}{s.namespace, s.reserved, s.hash, sum})...), nil
}

// Blob returns what is inside the armor, for where a signature is a field and not a file.
func (s *Signature) Blob() []byte {
	return append([]byte(magic), ssh.Marshal(blob{
		Version: version, PublicKey: s.key.Marshal(), Namespace: s.namespace, Reserved: s.reserved, Hash: s.hash,
		Signature: ssh.Marshal(s.signature),
	})...)
}

// Armor returns the signature as ssh-keygen writes it.
func (s *Signature) Armor() []byte {
	text := base64.StdEncoding.EncodeToString(s.Blob())
	var b bytes.Buffer
	b.WriteString(begin + "\n")
	for len(text) > 0 {
		n := min(width, len(text))
		b.WriteString(text[:n] + "\n")
		text = text[n:]
	}
	b.WriteString(end + "\n")
	return b.Bytes()
}

package witness

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

	"golang.org/x/crypto/ssh"
	"golang.org/x/mod/sumdb/note"
)

// Specification constants, c2sp.org/tlog-cosignature.
const (
	cosignatureAlgorithm = 0x04
	cosignatureSize      = 8 + ed25519.SignatureSize // a time and a signature
	keyIDSize            = 4
)

// Cosign returns the line that a witness puts under a checkpoint (c2sp.org/tlog-cosignature, Ed25519 cosignature/v1): that at this time
// it was the newest one of a log in which nothing had changed. text is the checkpoint without its signatures.
func Cosign(signer ssh.Signer, name, text string, now time.Time) ([]byte, error) {
	public, err := ed25519Key(signer.PublicKey())
	if err != nil {
		return nil, fmt.Errorf("cosigning: %w", err)
	}
	seconds := uint64(now.Unix())
	signature, err := signer.Sign(nil, cosigned(text, seconds))
	if err != nil {
		return nil, fmt.Errorf("cosigning: %w", err)
	}
	if !ed25519.Verify(public, cosigned(text, seconds), signature.Blob) { // an agent may answer anything
		return nil, errors.New("cosigning: the signature just made does not verify")
	}
	raw := binary.BigEndian.AppendUint32(nil, keyID(name, public))
	raw = binary.BigEndian.AppendUint64(raw, seconds)
	raw = append(raw, signature.Blob...)
	return fmt.Appendf(nil, "— %s %s\n", name, base64.StdEncoding.EncodeToString(raw)), nil
}

// Cosigner verifies a witness's cosignatures. It is a note.Verifier.
type Cosigner struct {
	name string
	key  ed25519.PublicKey
}

var _ note.Verifier = Cosigner{}

// NewCosigner is the verifier of a witness's name and key (authorized_keys form), as trust.json has them.
func NewCosigner(name, key string) (Cosigner, error) {
	parsed, _, _, _, err := ssh.ParseAuthorizedKey([]byte(key))
	if err != nil {
		return Cosigner{}, fmt.Errorf("witness %s: %w", name, err)
	}
	public, err := ed25519Key(parsed)
	if err != nil {
		return Cosigner{}, fmt.Errorf("witness %s: %w", name, err)
	}
	return Cosigner{name, public}, nil
}

// Name is the witness's.
func (c Cosigner) Name() string { return c.name }

// KeyHash is the key's id in a signature line.
func (c Cosigner) KeyHash() uint32 { return keyID(c.name, c.key) }

// Verify checks one cosignature over a checkpoint's text.
func (c Cosigner) Verify(text, signature []byte) bool {
	if len(signature) != cosignatureSize || len(c.key) != ed25519.PublicKeySize {
		return false
	}
	return ed25519.Verify(c.key, cosigned(string(text), binary.BigEndian.Uint64(signature)), signature[8:])
}

// VerifierKey is the key in the form in which logs' tools take it ("NAME+ID+KEY").
func (c Cosigner) VerifierKey() string {
	raw := append([]byte{cosignatureAlgorithm}, c.key...)
	return fmt.Sprintf("%s+%08x+%s", c.name, c.KeyHash(), base64.StdEncoding.EncodeToString(raw))
}

func cosigned(text string, seconds uint64) []byte {
	return []byte("cosignature/v1\ntime " + strconv.FormatUint(seconds, 10) + "\n" + text)
}

func keyID(name string, key ed25519.PublicKey) uint32 {
	sum := sha256.Sum256([]byte(name + "\n" + string(rune(cosignatureAlgorithm)) + string(key)))
	return binary.BigEndian.Uint32(sum[:keyIDSize])
}

func ed25519Key(key ssh.PublicKey) (ed25519.PublicKey, error) {
	crypto, ok := key.(ssh.CryptoPublicKey)
	if !ok || key.Type() != ssh.KeyAlgoED25519 {
		return nil, fmt.Errorf("a key of type %s: it must be %s", key.Type(), ssh.KeyAlgoED25519)
	}
	public, ok := crypto.CryptoPublicKey().(ed25519.PublicKey)
	if !ok || len(public) != ed25519.PublicKeySize {
		return nil, errors.New("no Ed25519 key")
	}
	return public, nil
}

// Checkpoint is what a log's signed note says (c2sp.org/tlog-checkpoint).
type Checkpoint struct {
	Origin string
	Size   int64
	Root   [sha256.Size]byte
}

// ParseCheckpoint reads a checkpoint's text, without its signatures: origin, size, root hash, and lines that mean nothing here.
func ParseCheckpoint(text string) (Checkpoint, error) {
	lines := strings.SplitN(text, "\n", 4)
	if len(lines) < 4 || lines[0] == "" {
		return Checkpoint{}, errors.New("a checkpoint has an origin, a size and a root hash, each on a line")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 || strconv.FormatInt(size, 10) != lines[1] {
		return Checkpoint{}, fmt.Errorf("size %.32q is no number", lines[1])
	}
	root, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || len(root) != sha256.Size {
		return Checkpoint{}, fmt.Errorf("root hash %.64q is no hash in base64", lines[2])
	}
	c := Checkpoint{Origin: lines[0], Size: size}
	copy(c.Root[:], root)
	if size == 0 && c.Root != sha256.Sum256(nil) {
		return Checkpoint{}, errors.New("an empty log has another root hash")
	}
	return c, nil
}

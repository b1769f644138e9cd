package softkey

import (
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/durable"
	"mayfly/internal/hint"
)

// Specification constants (PROTOCOL.u2f).
const (
	KeyType     = "sk-ssh-ed25519@openssh.com"
	Application = "ssh:"
)

// pemType names a key file for what it is.
const pemType = "SOFTWARE SECURITY KEY FOR TESTS"

// Comment goes with every public key that this package writes or serves.
const Comment = "software-test-key"

// Key is a software key of a hardware key's type.
type Key struct {
	private ed25519.PrivateKey
	public  ssh.PublicKey
}

// New makes a key from the random source.
func New(random io.Reader) (*Key, error) {
	seed := make([]byte, ed25519.SeedSize)
	if _, err := io.ReadFull(random, seed); err != nil {
		return nil, fmt.Errorf("making a software key: %w", err)
	}
	return fromSeed(seed)
}

func fromSeed(seed []byte) (*Key, error) {
	private := ed25519.NewKeyFromSeed(seed)
	blob := ssh.Marshal(struct {
		Type, Key, Application string
	}{KeyType, string(private.Public().(ed25519.PublicKey)), Application})
	public, err := ssh.ParsePublicKey(blob)
	if err != nil {
		return nil, fmt.Errorf("making a software key: %w", err)
	}
	return &Key{private: private, public: public}, nil
}

// Public is the key's public half.
func (k *Key) Public() ssh.PublicKey { return k.public }

// Authorized is the public key as a policy enrols it: "TYPE BASE64".
func (k *Key) Authorized() string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k.public)))
}

// Save writes the key to path (0600) and its public half, in authorized_keys form, to path.pub.
func (k *Key) Save(path string) error {
	block := pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: k.private.Seed()})
	if err := durable.WriteFile(path, block, 0o600); err != nil {
		return fmt.Errorf("saving software key: %w", err)
	}
	if err := durable.WriteFile(path+".pub", []byte(k.Authorized()+" "+Comment+"\n"), 0o644); err != nil {
		return fmt.Errorf("saving software key: %w", err)
	}
	return nil
}

// Load reads a key that Save wrote.
func Load(path string) (*Key, error) {
	data, err := durable.ReadSecret(path)
	if err != nil {
		return nil, fmt.Errorf("loading software key: %w", err)
	}
	block, rest := pem.Decode(data)
	if block == nil || block.Type != pemType || len(rest) != 0 || len(block.Bytes) != ed25519.SeedSize {
		return nil, hint.New(fmt.Errorf("loading software key %s: %w", path, errors.New("not a software security key")),
			"make one with: testenv softkey new %s", path)
	}
	return fromSeed(block.Bytes)
}

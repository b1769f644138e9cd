package audit

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"mayfly/internal/durable"
	"mayfly/internal/hint"
)

// KeyName is the default name of the log's key, in its directory. The public half is in KeyName.pub.
const KeyName = "audit_key"

// maxKeyFile bounds a file with one key of signed notes.
const maxKeyFile = 4096

// loadKey reads the log's key, or makes one under this name. The public half is written beside it.
func loadKey(path, name string) (note.Signer, note.Verifier, error) {
	text, err := durable.ReadSecret(path)
	if errors.Is(err, fs.ErrNotExist) {
		if text, err = makeKey(path, name); err != nil {
			return nil, nil, err
		}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("reading the log's key: %w", err)
	}
	secret := strings.TrimSpace(string(text))
	signer, err := note.NewSigner(secret)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the log's key %s: %w", path, err)
	}
	public, err := publicKey(secret)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the log's key %s: %w", path, err)
	}
	verifier, err := note.NewVerifier(public)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the log's key %s: %w", path, err)
	}
	line := []byte(public + "\n")
	if old, err := os.ReadFile(path + ".pub"); err != nil || !bytes.Equal(old, line) {
		if err := durable.WriteFile(path+".pub", line, 0o644); err != nil {
			return nil, nil, err
		}
	}
	return signer, verifier, nil
}

func makeKey(path, name string) ([]byte, error) {
	if name == "" {
		return nil, hint.New(errors.New("the log has no key, and no name to make one for"), "give the key that belongs to the log")
	}
	secret, _, err := note.GenerateKey(rand.Reader, name)
	if err != nil {
		return nil, fmt.Errorf("making the log's key: %w", err)
	}
	text := []byte(secret + "\n")
	return text, durable.WriteFile(path, text, 0o600)
}

// publicKey is the verifier key of a signer key, "PRIVATE+KEY+NAME+HASH+BASE64" with the algorithm in the first byte.
func publicKey(secret string) (string, error) {
	parts := strings.SplitN(secret, "+", 5)
	if len(parts) != 5 {
		return "", errors.New("malformed signer key")
	}
	raw, err := base64.StdEncoding.DecodeString(parts[4])
	if err != nil || len(raw) != 1+ed25519.SeedSize {
		return "", errors.New("malformed signer key")
	}
	return note.NewEd25519VerifierKey(parts[2], ed25519.NewKeyFromSeed(raw[1:]).Public().(ed25519.PublicKey))
}

// readKey reads a verifier key as it stands in its file.
func readKey(path string) (string, error) {
	data, err := durable.ReadRegular(path, maxKeyFile)
	return strings.TrimSpace(string(data)), err
}

// ReadVerifier reads a file with a log's verifier key.
func ReadVerifier(path string) (note.Verifier, error) {
	data, err := durable.ReadRegular(path, maxKeyFile)
	if err != nil {
		return nil, hint.New(fmt.Errorf("reading verifier key: %w", err), "name the log's %s.pub, kept elsewhere since the log began", KeyName)
	}
	v, err := note.NewVerifier(strings.TrimSpace(string(data)))
	if err != nil {
		return nil, hint.New(fmt.Errorf("reading verifier key %s: %w", path, err), "it is one line, NAME+HASH+KEY")
	}
	return v, nil
}

// LogName makes a log's name, which is its origin, of parts as they come: what a signed note does not allow becomes "-".
func LogName(parts ...string) string {
	clean := func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' || r == '_' {
			return r
		}
		return '-'
	}
	for i, part := range parts {
		parts[i] = strings.Map(clean, part)
	}
	return strings.Join(parts, "/")
}

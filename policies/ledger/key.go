package ledger

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/mod/sumdb/note"

	"mayfly/internal/audit"
	"mayfly/policies/trust"
)

// Origin is the name of a fleet's ledger, in its checkpoints and in the names of its keys.
func Origin(fleet string) string { return audit.LogName("mayfly", fleet, "ledger") }

// Keys are whose signatures a checkpoint of the ledger needs: one of the ledger's own, and those of as many witnesses as the threshold says.
// The zero value believes nothing.
type Keys struct {
	Ledger    []note.Verifier
	Witnesses []Witness
	Threshold int // of witnesses; 0 asks none
}

// Witness cosigns checkpoints, with any of its keys.
type Witness struct {
	Name string
	Keys []note.Verifier
}

// KeysOf are the keys that a trust policy names. One that names no ledger key believes no ledger.
func KeysOf(t *trust.Trust) (Keys, error) {
	k := Keys{Threshold: t.WitnessThreshold}
	for _, line := range t.LedgerKeys {
		v, err := verifierOf(Origin(t.Fleet), line)
		if err != nil {
			return Keys{}, fmt.Errorf("ledger_keys: %w", err)
		}
		k.Ledger = append(k.Ledger, v)
	}
	for _, person := range t.Witnesses {
		w := Witness{Name: person.Name}
		for _, line := range person.Keys {
			vkey, err := WitnessKey(person.Name, line)
			if err != nil {
				return Keys{}, err
			}
			v, err := audit.NewWitnessVerifier(vkey)
			if err != nil {
				return Keys{}, fmt.Errorf("witness %s: %w", person.Name, err)
			}
			w.Keys = append(w.Keys, v)
		}
		k.Witnesses = append(k.Witnesses, w)
	}
	return k, nil
}

// VerifierKey is the key of a fleet's ledger ("TYPE BASE64", Ed25519) in the form of signed notes, "NAME+ID+KEY".
func VerifierKey(fleet, line string) (string, error) {
	public, err := ed25519Key(line)
	if err != nil {
		return "", err
	}
	return note.NewEd25519VerifierKey(Origin(fleet), public)
}

func verifierOf(origin, line string) (note.Verifier, error) {
	public, err := ed25519Key(line)
	if err != nil {
		return nil, err
	}
	vkey, err := note.NewEd25519VerifierKey(origin, public)
	if err != nil {
		return nil, err
	}
	return note.NewVerifier(vkey)
}

// cosignatureAlgorithm is c2sp.org/tlog-cosignature's Ed25519 cosignature/v1.
const cosignatureAlgorithm = 0x04

// WitnessKey is a witness's key ("TYPE BASE64", Ed25519) in the form of signed notes, for its cosignatures.
func WitnessKey(name, line string) (string, error) {
	public, err := ed25519Key(line)
	if err != nil {
		return "", fmt.Errorf("witness %s: %w", name, err)
	}
	raw := append([]byte{cosignatureAlgorithm}, public...)
	id := sha256.Sum256(append([]byte(name+"\n"), raw...))
	return fmt.Sprintf("%s+%08x+%s", name, binary.BigEndian.Uint32(id[:]), base64.StdEncoding.EncodeToString(raw)), nil
}

func ed25519Key(line string) (ed25519.PublicKey, error) {
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		return nil, errors.New("not a public key")
	}
	c, ok := key.(ssh.CryptoPublicKey)
	if !ok || key.Type() != ssh.KeyAlgoED25519 {
		return nil, fmt.Errorf("a key of type %s: it must be %s", key.Type(), ssh.KeyAlgoED25519)
	}
	public, ok := c.CryptoPublicKey().(ed25519.PublicKey)
	if !ok || len(public) != ed25519.PublicKeySize {
		return nil, errors.New("no Ed25519 key")
	}
	return public, nil
}

// Signer signs a ledger's checkpoints with a key that an ssh.Signer holds.
func Signer(fleet string, key ssh.Signer) (*audit.Own, error) {
	v, err := verifierOf(Origin(fleet), strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key.PublicKey()))))
	if err != nil {
		return nil, fmt.Errorf("the ledger's key: %w", err)
	}
	return &audit.Own{Signer: sshSigner{v, key}, Verifier: v}, nil
}

type sshSigner struct {
	note.Verifier
	key ssh.Signer
}

func (s sshSigner) Sign(msg []byte) ([]byte, error) {
	sig, err := s.key.Sign(nil, msg)
	if err != nil {
		return nil, err
	}
	if !s.Verify(msg, sig.Blob) {
		return nil, errors.New("the signature just made does not verify")
	}
	return sig.Blob, nil
}

package ledger

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/mod/sumdb/note"

	"mayfly/policies/trust"
	"mayfly/policies/witness"
)

// Origin is the name of a fleet's ledger, in its checkpoints and in the names of its keys.
func Origin(fleet string) string { return "mayfly/" + fleet + "/ledger" }

// Keys are whose signatures a checkpoint of the ledger needs: one of the ledger's own, and those of as many witnesses as the threshold says.
// The zero value believes nothing.
type Keys struct {
	Ledger    []note.Verifier
	Witnesses []note.Verifier // several of one name are one witness
	Threshold int             // of witnesses; 0 asks none
}

// KeysOf are the keys that a trust policy names. One that names no ledger key believes no ledger.
func KeysOf(t *trust.Trust) (Keys, error) {
	if t == nil || t.WitnessThreshold < 0 || t.WitnessThreshold == 0 && !t.Test {
		return Keys{}, errors.New("no trust policy that says who confirms a ledger")
	}
	people := make(map[string][]string)
	for _, w := range t.Witnesses {
		people[w.Name] = w.Keys
	}
	return NewKeys(t.Fleet, t.LedgerKeys, people, t.WitnessThreshold)
}

// NewKeys are the keys of a fleet's ledger and of its witnesses by their names, all "TYPE BASE64", Ed25519.
func NewKeys(fleet string, ledger []string, witnesses map[string][]string, threshold int) (Keys, error) {
	k := Keys{Threshold: threshold}
	for _, line := range ledger {
		v, err := Verifier(fleet, line)
		if err != nil {
			return Keys{}, err
		}
		k.Ledger = append(k.Ledger, v)
	}
	for name, lines := range witnesses {
		for _, line := range lines {
			v, err := witness.NewCosigner(name, line)
			if err != nil {
				return Keys{}, err
			}
			k.Witnesses = append(k.Witnesses, v)
		}
	}
	return k, nil
}

// VerifierKey is a key of a fleet's ledger in the form of signed notes, "NAME+ID+KEY".
func VerifierKey(fleet, line string) (string, error) {
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		return "", errors.New("ledger key: not a public key")
	}
	c, ok := key.(ssh.CryptoPublicKey)
	if !ok || key.Type() != ssh.KeyAlgoED25519 {
		return "", fmt.Errorf("ledger key: of type %s, it must be %s", key.Type(), ssh.KeyAlgoED25519)
	}
	public, ok := c.CryptoPublicKey().(ed25519.PublicKey)
	if !ok || len(public) != ed25519.PublicKeySize {
		return "", errors.New("ledger key: not Ed25519")
	}
	vkey, err := note.NewEd25519VerifierKey(Origin(fleet), public)
	if err != nil {
		return "", fmt.Errorf("ledger key: %w", err)
	}
	return vkey, nil
}

// Verifier checks a ledger's own signatures.
func Verifier(fleet, line string) (note.Verifier, error) {
	vkey, err := VerifierKey(fleet, line)
	if err != nil {
		return nil, err
	}
	return note.NewVerifier(vkey)
}

// NewSigner signs a ledger's checkpoints with a key that an ssh.Signer holds.
func NewSigner(fleet string, key ssh.Signer) (note.Signer, error) {
	v, err := Verifier(fleet, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key.PublicKey()))))
	if err != nil {
		return nil, err
	}
	return signer{v, key}, nil
}

type signer struct {
	note.Verifier
	key ssh.Signer
}

func (s signer) Sign(msg []byte) ([]byte, error) {
	sig, err := s.key.Sign(nil, msg)
	if err != nil {
		return nil, err
	}
	if !s.Verify(msg, sig.Blob) {
		return nil, errors.New("the signature just made does not verify")
	}
	return sig.Blob, nil
}

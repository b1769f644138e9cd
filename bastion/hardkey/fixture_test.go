package hardkey

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/sshsig"
)

func challengeFor(fleet, name string) Challenge {
	return NewChallenge(fleet, name, [NonceBytes]byte{1, 2, 3}, now)
}

// line is a public key as a policy has it.
func line(k ssh.PublicKey) string {
	return strings.TrimSuffix(string(ssh.MarshalAuthorizedKey(k)), "\n")
}

func newEd25519(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// answerOf signs a challenge as a PIV key's holder does.
func answerOf(t testing.TB, key any, c Challenge) string {
	t.Helper()
	return signatureOf(t, key, Namespace, c.Signed())
}

func signatureOf(t testing.TB, key any, namespace string, message []byte) string {
	t.Helper()
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	armored, err := sshsig.Sign(signer, namespace, message)
	if err != nil {
		t.Fatal(err)
	}
	sig, err := sshsig.Parse(armored)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(sig.Blob())
}

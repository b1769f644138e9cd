package hardkey

import (
	"crypto"
	"encoding/base64"
	"strings"

	"golang.org/x/crypto/ssh"
)

// key is an SSH public key that hardware of the kind can hold.
type key struct {
	ssh   ssh.PublicKey
	plain crypto.PublicKey // PIV

	raw         []byte // FIDO2: Ed25519's 32 bytes, or P-256's uncompressed point
	application string // FIDO2
}

// keyTypes by kind of evidence. RSA is left out: what uses it here would be the only one to.
var keyTypes = map[string][]string{
	KindPIV:   {ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoED25519},
	KindFIDO2: {ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256},
}

// KeyTypes of a kind of evidence, as an SSH public key names them.
func KeyTypes(kind string) []string { return append([]string(nil), keyTypes[kind]...) }

// Bodies of security keys' public keys (PROTOCOL.u2f).
type (
	skEd25519 struct {
		Name        string
		Key         []byte
		Application string
	}
	skECDSA struct {
		Name        string
		Curve       string
		Key         []byte
		Application string
	}
)

func parseKey(public, kind string) (key, *Rejection) {
	const mend = "make a key of another type: bastion-agent setup, or ssh-keygen -t ed25519-sk"
	if len(public) > maxPublic {
		return key{}, malformed("public", "longer than %d bytes", maxPublic)
	}
	name, body, _ := strings.Cut(public, " ")
	known := false
	for _, t := range keyTypes[kind] {
		known = known || t == name
	}
	if !known {
		return key{}, reject(KeyType, mend, "a key of type %q cannot have evidence of kind %s; its types are %s", clip(name), kind, strings.Join(keyTypes[kind], ", ")).of("public")
	}
	blob, err := decode(body, maxPublic)
	if err != nil {
		return key{}, malformed("public", "not of the form TYPE BASE64: %v", err)
	}
	parsed, err := ssh.ParsePublicKey(blob)
	if err != nil {
		return key{}, malformed("public", "%v", err)
	}
	if parsed.Type() != name {
		return key{}, malformed("public", "says %s and holds a key of type %s", name, clip(parsed.Type()))
	}
	if name+" "+base64.StdEncoding.EncodeToString(parsed.Marshal()) != public { // as policy.toml and trust.json take it
		return key{}, malformed("public", "not in its one form, TYPE BASE64")
	}
	k := key{ssh: parsed}
	switch name {
	case ssh.KeyAlgoSKED25519:
		var sk skEd25519
		err = ssh.Unmarshal(blob, &sk)
		k.raw, k.application = sk.Key, sk.Application
	case ssh.KeyAlgoSKECDSA256:
		var sk skECDSA
		err = ssh.Unmarshal(blob, &sk)
		k.raw, k.application = sk.Key, sk.Application
	default:
		k.plain = parsed.(ssh.CryptoPublicKey).CryptoPublicKey()
	}
	if err != nil {
		return key{}, malformed("public", "%v", err)
	}
	return k, nil
}

// equals reports whether a certificate's key is this very key.
func (k key) equals(other crypto.PublicKey) bool {
	plain, ok := k.plain.(interface{ Equal(crypto.PublicKey) bool })
	return ok && plain.Equal(other)
}

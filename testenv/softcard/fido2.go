package softcard

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math/big"

	"golang.org/x/crypto/ssh"

	"mayfly/bastion/hardkey"
)

// aaguid is the model of all FIDO2 authenticators made here. Its bytes spell "SOFTCARD TESTING".
var aaguid = []byte("SOFTCARD TESTING")

// AAGUID is their model as rules list it.
func AAGUID() string {
	h := hex.EncodeToString(aaguid)
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// skAttest is what ssh-keygen -O write-attestation writes.
type skAttest struct {
	Magic       string
	Certificate []byte
	Signature   []byte
	AuthData    []byte
	Flags       uint32
	Reserved    string
}

// skEd25519 is a security key's public key, PROTOCOL.u2f.
type skEd25519 struct {
	Name        string
	KeyBytes    []byte
	Application string
}

// ShowFIDO2 is what an authenticator of the maker shows for a key (sk-ssh-ed25519) that it made for a challenge.
func (m *Maker) ShowFIDO2(key ssh.PublicKey, challenge hardkey.Challenge) (hardkey.Shown, error) {
	var public skEd25519
	if err := ssh.Unmarshal(key.Marshal(), &public); err != nil {
		return hardkey.Shown{}, fmt.Errorf("softcard: %s: %w", key.Type(), err)
	}
	attest, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return hardkey.Shown{}, err
	}
	model, err := asn1.Marshal(aaguid)
	if err != nil {
		return hardkey.Shown{}, err
	}
	device, err := certify(&x509.Certificate{SerialNumber: big.NewInt(3), BasicConstraintsValid: true,
		Subject:   pkix.Name{Country: []string{"SE"}, Organization: []string{"mayfly TEST"}, OrganizationalUnit: []string{"Authenticator Attestation"}, CommonName: "TEST softcard authenticator"},
		NotBefore: m.Certificate.NotBefore, NotAfter: m.Certificate.NotAfter, ExtraExtensions: []pkix.Extension{{Id: oidAAGUID, Value: model}}}, m.Certificate, attest.Public(), m.key)
	if err != nil {
		return hardkey.Shown{}, err
	}
	rp := sha256.Sum256([]byte(public.Application))
	data := append(rp[:], 0x45, 0, 0, 0, 0) // present, verified, a new key follows; counter
	data = append(data, aaguid...)
	data = append(data, 0, 4, 'T', 'E', 'S', 'T')                                   // credential ID
	data = append(data, 0xa4, 0x01, 0x01, 0x03, 0x27, 0x20, 0x06, 0x21, 0x58, 0x20) // COSE: OKP, EdDSA, Ed25519, 32 bytes of key
	data = append(data, public.KeyBytes...)
	wrapped := append([]byte{0x58, byte(len(data))}, data...) // CBOR's byte string of 24 to 255 bytes
	hash := sha256.Sum256(challenge.Signed())
	message := sha256.Sum256(append(data, hash[:]...))
	sig, err := attest.Sign(rand.Reader, message[:], crypto.SHA256)
	if err != nil {
		return hardkey.Shown{}, err
	}
	blob := ssh.Marshal(skAttest{Magic: "ssh-sk-attest-v01", Certificate: device.Raw, Signature: sig, AuthData: wrapped})
	return hardkey.Shown{Kind: hardkey.KindFIDO2, Challenge: challenge.String(), Attestation: []string{base64.StdEncoding.EncodeToString(blob)}}, nil
}

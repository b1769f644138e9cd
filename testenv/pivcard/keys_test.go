package pivcard

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"math/big"
	"testing"
)

// publicOf reads a public key as the card gives it.
func publicOf(t *testing.T, algorithm byte, template []byte) crypto.PublicKey {
	t.Helper()
	parts, ok := fields(template)
	if !ok {
		t.Fatalf("public key: got % x", template)
	}
	var key crypto.PublicKey
	var err error
	switch algorithm {
	case 0x11, 0x14:
		curve := elliptic.P256()
		if algorithm == 0x14 {
			curve = elliptic.P384()
		}
		key, err = ecdsa.ParseUncompressedPublicKey(curve, parts[0x86])
	case 0xE0:
		key = ed25519.PublicKey(parts[0x86])
	case 0xE1:
		key, err = ecdh.X25519().NewPublicKey(parts[0x86])
	default:
		key = &rsa.PublicKey{N: new(big.Int).SetBytes(parts[0x81]), E: int(new(big.Int).SetBytes(parts[0x82]).Int64())}
	}
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// check has the slot's key sign or agree, and verifies it.
func (c client) check(algorithm, slot byte, public crypto.PublicKey) {
	t := c.t
	t.Helper()
	digest := sha256.Sum256([]byte("what is signed"))
	switch public := public.(type) {
	case *ecdsa.PublicKey:
		if s, sw := c.sign(algorithm, slot, digest[:]); sw != statusOK || !ecdsa.VerifyASN1(public, digest[:], s) {
			t.Errorf("algorithm %02x: signature: %04x % x", algorithm, uint16(sw), s)
		}
		peer, err := ecdsa.GenerateKey(public.Curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		own, err := public.ECDH()
		if err != nil {
			t.Fatal(err)
		}
		private, err := peer.ECDH()
		if err != nil {
			t.Fatal(err)
		}
		c.agrees(algorithm, slot, private, own)
	case ed25519.PublicKey:
		message := bytes.Repeat([]byte("long "), 300)
		if s, sw := c.sign(algorithm, slot, message); sw != statusOK || !ed25519.Verify(public, message, s) {
			t.Errorf("Ed25519: signature: %04x % x", uint16(sw), s)
		}
	case *ecdh.PublicKey:
		private, err := ecdh.X25519().GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		c.agrees(algorithm, slot, private, public)
	case *rsa.PublicKey:
		prefix := []byte{0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20}
		block := append([]byte{0, 1}, bytes.Repeat([]byte{0xFF}, public.Size()-3-len(prefix)-len(digest))...)
		block = append(append(append(block, 0), prefix...), digest[:]...)
		s, sw := c.sign(algorithm, slot, block)
		if sw != statusOK || rsa.VerifyPKCS1v15(public, crypto.SHA256, digest[:], s) != nil {
			t.Errorf("RSA-%d: signature: %04x", public.N.BitLen(), uint16(sw))
		}
		padded := append(append([]byte{0, 2}, bytes.Repeat([]byte{0xAA}, public.Size()-9)...), "\x00hidden"...)
		secret := new(big.Int).Exp(new(big.Int).SetBytes(padded), big.NewInt(int64(public.E)), public.N).FillBytes(make([]byte, public.Size()))
		if plain, sw := c.sign(algorithm, slot, secret); sw != statusOK || !bytes.Equal(plain, padded) {
			t.Errorf("RSA-%d: decryption: %04x % x", public.N.BitLen(), uint16(sw), plain)
		}
		if _, sw := c.sign(algorithm, slot, block[1:]); sw != statusData {
			t.Errorf("RSA-%d: a short block: got %04x, want 6a80", public.N.BitLen(), uint16(sw))
		}
		if _, sw := c.sign(algorithm, slot, public.N.Bytes()); sw != statusData {
			t.Errorf("RSA-%d: a block as large as the modulus: got %04x, want 6a80", public.N.BitLen(), uint16(sw))
		}
	default:
		t.Fatalf("a key %T", public)
	}
}

func (c client) agrees(algorithm, slot byte, peer *ecdh.PrivateKey, own *ecdh.PublicKey) {
	c.t.Helper()
	want, err := peer.ECDH(own)
	if err != nil {
		c.t.Fatal(err)
	}
	out := c.must(0x87, algorithm, slot, tlv(0x7C, []byte{0x82, 0}, tlv(0x85, peer.PublicKey().Bytes())))
	if !bytes.Equal(out, tlv(0x7C, tlv(0x82, want))) {
		c.t.Errorf("algorithm %02x: agreement: got % x, want % x", algorithm, out, want)
	}
}

// Every algorithm is generated, used and attested, in slots of both kinds.
func TestAlgorithms(t *testing.T) {
	for _, tt := range []struct {
		firmware  Firmware
		algorithm byte
		slot      byte
	}{
		{fw435, 0x11, 0x9A}, {fw527, 0x14, 0x9C}, {fw543, 0x06, 0x9D}, {fw530, 0x07, 0x9E}, {fw574, 0x05, 0x82}, {fw574, 0xE0, 0x9A}, {fw574, 0xE1, 0x95},
	} {
		c := newCard(t, tt.firmware)
		c.administrator()
		template := c.generate(tt.algorithm, tt.slot, 1, 1)
		public := publicOf(t, tt.algorithm, template)
		c.check(tt.algorithm, tt.slot, public)
		if tt.algorithm == 0xE1 {
			c.refused(statusData, 0xF9, tt.slot, 0, nil) // doc.go: a limit of ours
		} else if cert := c.attested(tt.slot); !public.(interface{ Equal(crypto.PublicKey) bool }).Equal(cert.PublicKey) {
			t.Errorf("algorithm %02x: the attestation is of another key", tt.algorithm)
		}
		if tt.firmware.has(firmwareMetadata) {
			want := append([]byte{1, 1, tt.algorithm, 2, 2, 1, 1, 3, 1, 1}, tlv(4, template)...)
			if got := c.must(0xF7, 0, tt.slot, nil); !bytes.Equal(got, want) {
				t.Errorf("algorithm %02x: metadata: got % x, want % x", tt.algorithm, got, want)
			}
		}
	}
}

// Every algorithm is imported and used; what is imported is not attested.
func TestImport(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	scalar, err := ecKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	edPublic, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	xKey, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	half := func(n *big.Int) []byte { return n.FillBytes(make([]byte, 128)) }
	pre := rsaKey.Precomputed
	parts := [][]byte{half(rsaKey.Primes[0]), half(rsaKey.Primes[1]), half(pre.Dp), half(pre.Dq), half(pre.Qinv)}
	var rsaData []byte
	for i, p := range parts {
		rsaData = append(rsaData, tlv(uint32(i+1), p)...)
	}
	policies := []byte{0xAA, 1, 1, 0xAB, 1, 1}
	for _, tt := range []struct {
		algorithm byte
		data      []byte
		public    crypto.PublicKey
	}{
		{0x07, rsaData, &rsaKey.PublicKey},
		{0x14, tlv(6, scalar), &ecKey.PublicKey},
		{0xE0, tlv(7, edKey.Seed()), edPublic},
		{0xE1, tlv(8, xKey.Bytes()), xKey.PublicKey()},
	} {
		c := newCard(t, fw574)
		c.administrator()
		c.must(0xFE, tt.algorithm, 0x9A, append(bytes.Clone(tt.data), policies...))
		c.check(tt.algorithm, 0x9A, tt.public)
		c.refused(statusData, 0xF9, 0x9A, 0, nil)
		if got, _ := fields(c.must(0xF7, 0, 0x9A, nil)); !bytes.Equal(got[3], []byte{2}) {
			t.Errorf("algorithm %02x: origin: got % x, want imported", tt.algorithm, got[3])
		}
		c.must(0xF6, 0x82, 0x9A, nil) // moving does not make it generated
		c.refused(statusData, 0xF9, 0x82, 0, nil)
	}
	c := newCard(t, fw574)
	c.administrator()
	swapped := bytes.Clone(rsaData)
	swapped[len(swapped)-1] ^= 1
	c.refused(statusData, 0xFE, 0x07, 0x9A, swapped)
	twice := bytes.Clone(rsaData)
	copy(twice[4+128:], rsaData[:4+128])
	c.refused(statusData, 0xFE, 0x07, 0x9A, twice)
	c.refused(statusReference, 0xF7, 0, 0x9A, nil)
}

// Slots have default policies of their own.
func TestDefaultPolicies(t *testing.T) {
	c := newCard(t, fw574)
	c.administrator()
	for slot, want := range map[byte][]byte{0x9A: {2, 1}, 0x9C: {3, 1}, 0x9D: {2, 1}, 0x9E: {1, 1}, 0x82: {2, 1}, 0x95: {2, 1}} {
		c.must(0x47, 0, slot, []byte{0xAC, 3, 0x80, 1, 0x11})
		if got, _ := fields(c.must(0xF7, 0, slot, nil)); !bytes.Equal(got[2], want) {
			t.Errorf("slot %02x: policies: got % x, want % x", slot, got[2], want)
		}
	}
	c.must(0x47, 0, 0x9C, []byte{0xAC, 9, 0x80, 1, 0x11, 0xAA, 1, 0, 0xAB, 1, 0}) // 0 is the default as well
	if got, _ := fields(c.must(0xF7, 0, 0x9C, nil)); !bytes.Equal(got[2], []byte{3, 1}) {
		t.Errorf("policies: got % x, want 03 01", got[2])
	}
}

// PIN policies: never needs none, once one for the session, always one for each use.
func TestPINPolicies(t *testing.T) {
	c := newCard(t, fw574)
	c.administrator()
	digest := make([]byte, 32)
	uses := func(want ...Status) {
		t.Helper()
		for i, slot := range []byte{0x82, 0x83, 0x84} {
			if _, sw := c.sign(0x11, slot, digest); sw != want[i] {
				t.Errorf("policy %d: got %04x, want %04x", i+1, uint16(sw), uint16(want[i]))
			}
		}
	}
	for i := range byte(3) {
		c.generate(0x11, 0x82+i, 1+i, 1)
	}
	uses(statusOK, statusSecurity, statusSecurity)
	c.pin(DefaultPIN)
	if _, sw := c.sign(0x11, 0x84, digest); sw != statusOK {
		t.Errorf("always, right after the PIN: got %04x", uint16(sw))
	}
	uses(statusOK, statusOK, statusSecurity)
	c.pin(DefaultPIN)
	uses(statusOK, statusOK, statusSecurity) // the first use was another key's
	c.card.Reset()
	c.must(0xA4, 4, 0, aidPIV)
	uses(statusOK, statusSecurity, statusSecurity)
}

// A moved key works where it is, and not where it was; a deleted one nowhere.
func TestMove(t *testing.T) {
	c := newCard(t, fw574)
	c.administrator()
	public := publicOf(t, 0x11, c.generate(0x11, 0x9A, 1, 1))
	c.must(0xF6, 0x82, 0x9A, nil)
	c.refused(statusReference, 0xF7, 0, 0x9A, nil)
	c.check(0x11, 0x82, public)
	if got := c.attested(0x82).Subject.CommonName; got != "YubiKey PIV Attestation 82" {
		t.Errorf("attestation: got %q", got)
	}
	c.must(0xF6, 0xFF, 0x82, nil)
	c.refused(statusReference, 0xF7, 0, 0x82, nil)
	c.must(0xF6, 0xFF, 0xF9, nil) // the attestation key can be deleted, and then nothing is attested
	c.generate(0x11, 0x9A, 1, 1)
	c.refused(statusData, 0xF9, 0x9A, 0, nil)
}

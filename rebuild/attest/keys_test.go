package attest_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/hex"
	"math/big"
	"testing"
	"time"

	"mayfly/rebuild/attest"
	"mayfly/rebuild/attest/tpm"
	"mayfly/testenv/swtpm"
)

func identity(t *testing.T, chip *swtpm.TPM, kind tpm.Kind) *tpm.Identity {
	t.Helper()
	id, err := tpm.New(chip.Dial(), kind)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func closeOf(t *testing.T, id *tpm.Identity) {
	t.Helper()
	if err := id.Close(); err != nil {
		t.Error(err)
	}
}

// The endorsement key is the TPM's own and stays; the attestation key is new each time.
func TestKeys(t *testing.T) {
	for name, kind := range map[string]tpm.Kind{"P-256": tpm.P256, "RSA 2048": tpm.RSA2048} {
		t.Run(name, func(t *testing.T) {
			chip := swtpm.Start(t)
			first := identity(t, chip, kind)
			closeOf(t, first)
			chip.Restart()
			id := identity(t, chip, kind)
			defer closeOf(t, id)
			if !bytes.Equal(first.EK, id.EK) {
				t.Error("the endorsement key changed")
			}
			if bytes.Equal(first.AK, id.AK) {
				t.Error("the attestation key did not change")
			}
			if err := attest.CheckKeys(id.EK, id.AK); err != nil {
				t.Error(err)
			}
			secret := random(attest.SecretBytes)
			blob, encrypted, err := attest.MakeCredential(rand.Reader, id.EK, id.AK, secret)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := id.Activate(blob, encrypted); err != nil || !bytes.Equal(got, secret) {
				t.Errorf("got %x, %v", got, err)
			}
			if got, err := id.Activate(flip(blob, len(blob)-1), encrypted); err == nil {
				t.Errorf("an altered challenge: got %x", got)
			}
			if got, err := id.Activate(blob, flip(encrypted, len(encrypted)-1)); err == nil {
				t.Errorf("an altered challenge: got %x", got)
			}
			// A secret for an attestation key of another TPM, or of an earlier boot, is none that this TPM gives out.
			blob, encrypted, err = attest.MakeCredential(rand.Reader, id.EK, first.AK, secret)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := id.Activate(blob, encrypted); err == nil {
				t.Errorf("a challenge of another attestation key: got %x", got)
			}
		})
	}
}

// A TPM that is not the inventory's cannot read what was encrypted to the one that is.
func TestOtherTPM(t *testing.T) {
	mine, other := swtpm.Start(t), swtpm.Start(t)
	a, b := identity(t, mine, tpm.P256), identity(t, other, tpm.P256)
	defer closeOf(t, a)
	defer closeOf(t, b)
	blob, encrypted, err := attest.MakeCredential(rand.Reader, a.EK, b.AK, random(attest.SecretBytes))
	if err != nil {
		t.Fatal(err)
	}
	for name, id := range map[string]*tpm.Identity{"inventory's TPM, which has not this key": a, "TPM of the key": b} {
		if got, err := id.Activate(blob, encrypted); err == nil {
			t.Errorf("%s: got %x", name, got)
		}
	}
}

func TestMakeCredentialRefuses(t *testing.T) {
	chip := swtpm.Start(t)
	id := identity(t, chip, tpm.P256)
	defer closeOf(t, id)
	for _, tt := range []struct {
		name   string
		ek, ak []byte
		want   string
	}{
		{"no endorsement key", nil, id.AK, attest.EKMalformed},
		{"key that signs in its place", id.AK, id.AK, attest.EKMalformed},
		{"off the curve", flip(id.EK, len(id.EK)-1), id.AK, attest.EKMalformed},
		{"other attribute", flip(id.EK, 4), id.AK, attest.EKMalformed},
		{"data after", append(bytes.Clone(id.EK), 0), id.AK, attest.EKMalformed},
		{"no attestation key", id.EK, nil, attest.AKRefused},
		{"key that decrypts in its place", id.EK, id.EK, attest.AKRefused},
		{"cut", id.EK, id.AK[:len(id.AK)-1], attest.AKRefused},
		{"long", id.EK, append(bytes.Clone(id.AK), make([]byte, attest.MaxPublic)...), attest.AKRefused},
	} {
		if _, _, err := attest.MakeCredential(rand.Reader, tt.ek, tt.ak, random(32)); reason(err) != tt.want {
			t.Errorf("%s: got %v, want %s", tt.name, err, tt.want)
		}
	}
}

// What people have of an endorsement key gives the same public area.
func TestEndorsementArea(t *testing.T) {
	chip := swtpm.Start(t)
	for _, kind := range []tpm.Kind{tpm.P256, tpm.RSA2048} {
		id := identity(t, chip, kind)
		closeOf(t, id)
		var key any
		if kind == tpm.P256 {
			pub, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append(append([]byte{4}, id.EK[len(id.EK)-66:len(id.EK)-34]...), id.EK[len(id.EK)-32:]...))
			if err != nil {
				t.Fatal(err)
			}
			key = pub
		} else {
			key = &rsa.PublicKey{N: new(big.Int).SetBytes(id.EK[len(id.EK)-256:]), E: 65537}
		}
		for name, data := range map[string][]byte{
			"TPMT_PUBLIC": id.EK,
			"TPM2B":       append(binary.BigEndian.AppendUint16(nil, uint16(len(id.EK))), id.EK...),
			"certificate": certificate(t, key),
		} {
			got, err := attest.EndorsementArea(data)
			if err != nil || !bytes.Equal(got, id.EK) {
				t.Errorf("%s: got %x, %v", name, got, err)
			}
		}
		if h := attest.EndorsementHash(id.EK); len(h) != 64 || hex.EncodeToString(random(32)) == h {
			t.Errorf("got %s", h)
		}
	}
	ed, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"nothing": nil, "text": []byte("text"), "Ed25519": certificate(t, ed), "P-384": certificate(t, &other.PublicKey)} {
		if got, err := attest.EndorsementArea(data); err == nil {
			t.Errorf("%s: got %x", name, got)
		}
	}
}

// certificate certifies a key as a TPM's maker does.
func certificate(t *testing.T, key any) []byte {
	t.Helper()
	_, maker, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "EK"}, NotAfter: time.Date(2040, 1, 1, 0, 0, 0, 0, time.UTC)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key, maker)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

package attest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/google/go-tpm/tpm2"
)

// A quote under a good signature, by a key of this test: a TPM lets nobody choose these fields so freely.
func TestCheckQuote(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	area := []byte("an attestation key")
	values := make([]byte, PCRBytes)
	want := Expected{Nonce: []byte("nonce"), Secret: []byte("secret")}
	extra := Qualifying(want.Nonce, want.Secret, want.Bound)
	hash := sha256.Sum256(values)
	owner := name(append(binary.BigEndian.AppendUint32(nil, 0x40000001), name(area)...)) // TPM_RH_OWNER
	seen := uint32(2)
	for _, tt := range []struct {
		name   string
		signer []byte
		extra  []byte
		pcrs   []uint
		before *uint32
		reason string
	}{
		{"good", qualifiedName(area), extra[:], []uint{2, 4, 7, 9, 11, 12, 14}, nil, ""},
		{"an AK of the owner's hierarchy, whose count of resets is not the true one", owner, extra[:], []uint{2, 4, 7, 9, 11, 12, 14}, nil, AKRefused},
		{"registers that the system can reset", qualifiedName(area), extra[:], []uint{2, 4, 7, 9, 11, 12, 16}, nil, Malformed},
		{"one register less", qualifiedName(area), extra[:], []uint{4, 7, 9, 11, 12, 14}, nil, Malformed},
		{"another challenge", qualifiedName(area), make([]byte, 32), []uint{2, 4, 7, 9, 11, 12, 14}, nil, NonceWrong},
		{"not reset since", qualifiedName(area), extra[:], []uint{2, 4, 7, 9, 11, 12, 14}, &seen, NotRestarted},
	} {
		data := tpm2.Marshal(tpm2.TPMSAttest{
			Magic: tpm2.TPMGeneratedValue, Type: tpm2.TPMSTAttestQuote, QualifiedSigner: tpm2.TPM2BName{Buffer: tt.signer}, ExtraData: tpm2.TPM2BData{Buffer: tt.extra},
			ClockInfo: tpm2.TPMSClockInfo{Clock: 1, ResetCount: 2, Safe: true},
			Attested: tpm2.NewTPMUAttest(tpm2.TPMSTAttestQuote, &tpm2.TPMSQuoteInfo{
				PCRSelect: tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{Hash: tpm2.TPMAlgSHA256, PCRSelect: tpm2.PCClientCompatible.PCRs(tt.pcrs...)}}},
				PCRDigest: tpm2.TPM2BDigest{Buffer: hash[:]},
			}),
		})
		sum := sha256.Sum256(data)
		r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		sig := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, algECDSA), algSHA256)
		for _, n := range [][]byte{r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))} {
			sig = append(binary.BigEndian.AppendUint16(sig, 32), n...)
		}
		want.Before = tt.before
		q, got, err := checkQuote(&key.PublicKey, Evidence{AK: area, Quote: data, Signature: sig, PCRs: values}, want)
		var refusal *Refusal
		if reason := ""; errors.As(err, &refusal) || err == nil {
			if err != nil {
				reason = refusal.Reason
			}
			if reason != tt.reason {
				t.Errorf("%s: got %q (%v), want %q", tt.name, reason, err, tt.reason)
			}
		} else {
			t.Errorf("%s: %v is no refusal", tt.name, err)
		}
		if tt.reason == "" && (q.resets != 2 || len(got) != len(PCRs) || !bytes.Equal(q.extra, extra[:])) {
			t.Errorf("%s: got %+v, %v", tt.name, q, got)
		}
	}
}

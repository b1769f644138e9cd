package attest

import (
	"crypto/rand"
	"testing"

	"github.com/google/go-tpm/tpm2"
)

// seedQuote is a quote as a TPM says it.
func seedQuote() []byte {
	return tpm2.Marshal(tpm2.TPMSAttest{
		Magic: tpm2.TPMGeneratedValue, Type: tpm2.TPMSTAttestQuote,
		QualifiedSigner: tpm2.TPM2BName{Buffer: qualifiedName(nil)}, ExtraData: tpm2.TPM2BData{Buffer: make([]byte, 32)},
		ClockInfo: tpm2.TPMSClockInfo{Clock: 1, ResetCount: 2, RestartCount: 3, Safe: true},
		Attested: tpm2.NewTPMUAttest(tpm2.TPMSTAttestQuote, &tpm2.TPMSQuoteInfo{
			PCRSelect: tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{Hash: tpm2.TPMAlgSHA256, PCRSelect: tpm2.PCClientCompatible.PCRs(2, 4, 7, 9, 11, 12, 14)}}},
			PCRDigest: tpm2.TPM2BDigest{Buffer: make([]byte, 32)},
		}),
	})
}

func FuzzQuote(f *testing.F) {
	good := seedQuote()
	if q, err := parseQuote(good); err != nil || q.resets != 2 || q.restarts != 3 || !q.safe || q.clock != 1 || q.selection != selection() {
		f.Fatalf("the seed: %+v, %v", q, err)
	}
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		q, err := parseQuote(data)
		if err != nil {
			return
		}
		// What is believed, a library that reads all of the standard believes as well, and writes again the same.
		a, err := tpm2.Unmarshal[tpm2.TPMSAttest](data)
		if err != nil {
			t.Fatalf("another parser refuses it: %v", err)
		}
		if a.ClockInfo.ResetCount != q.resets || string(a.ExtraData.Buffer) != string(q.extra) || string(tpm2.Marshal(a)) != string(data) {
			t.Fatalf("another parser reads %+v", a)
		}
	})
}

func FuzzEventLog(f *testing.F) {
	for _, b := range realBoots {
		data := realLog(f, b.file)
		f.Add(data)
		f.Add(data[:len(data)/2])
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		events, err := parseLog(data)
		if err != nil {
			return
		}
		if len(events) > maxEvents {
			t.Fatalf("%d events", len(events))
		}
		replay(events)
		want := Expected{UKI: Digest{1}, Kernel: Digest{2}, Sections: Digest{4}, Loaded: Digest{5}, LoadedAlone: Digest{6}, SecureBoot: []Digest{{3}}}
		if measured, _, err := checkBoot(events, want); err == nil && measured {
			started := false
			for _, e := range events {
				started = started || e.digest == want.UKI
			}
			if !started {
				t.Fatal("believed a boot of an image that is not in the log")
			}
		}
		_, _ = authorities(events)
		_, _ = checkExtras(events, want)
		_ = checkDrivers(events, want)
	})
}

func FuzzPublicArea(f *testing.F) {
	f.Add(tpm2.Marshal(AKTemplate))
	f.Add(tpm2.Marshal(tpm2.ECCEKTemplate))
	rsa := tpm2.Marshal(tpm2.RSAEKTemplate)
	rsa[len(rsa)-1], rsa[len(rsa)-modulus] = 1, 0x80
	f.Add(rsa)
	f.Add(append(append([]byte{}, akPrefix...), 0, 1, 1, 0, 1, 1))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, ek := endorsementKey(data)
		_, ak := attestationKey(data)
		if ek == nil && ak == nil {
			t.Fatal("one key for both")
		}
		if ek == nil {
			if _, _, err := MakeCredential(rand.Reader, data, data, make([]byte, SecretBytes)); err == nil {
				t.Fatal("a credential without an attestation key")
			}
		}
		if _, err := EndorsementArea(data); ek == nil && err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzSignature(f *testing.F) {
	key, err := attestationKey(append(append([]byte{}, akPrefix...), generator...))
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte{0, 0x18, 0, 0x0b, 0, 1, 1, 0, 1, 1})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, sig []byte) {
		if err := checkSignature(key, []byte("data"), sig); err == nil {
			t.Fatal("believed a signature that nobody made")
		}
	})
}

// generator is P-256's own point, as it ends a public area.
var generator = []byte("\x00\x20\x6b\x17\xd1\xf2\xe1\x2c\x42\x47\xf8\xbc\xe6\xe5\x63\xa4\x40\xf2\x77\x03\x7d\x81\x2d\xeb\x33\xa0\xf4\xa1\x39\x45\xd8\x98\xc2\x96" +
	"\x00\x20\x4f\xe3\x42\xe2\xfe\x1a\x7f\x9b\x8e\xe7\xeb\x4a\x7c\x0f\x9e\x16\x2b\xce\x33\x57\x6b\x31\x5e\xce\xcb\xb6\x40\x68\x37\xbf\x51\xf5")

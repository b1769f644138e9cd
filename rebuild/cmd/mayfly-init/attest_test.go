package main

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"mayfly/rebuild/attest"
	"mayfly/rebuild/attest/tpm"
	"mayfly/rebuild/join"
	"mayfly/testenv/swtpm"
)

// TestProve: what the machine says of its boot is what a verifier wants, with either kind of endorsement key.
func TestProve(t *testing.T) {
	image, kernel := sha256.Sum256([]byte("image")), sha256.Sum256([]byte("kernel"))
	events := swtpm.Firmware(image, kernel)
	for name, kind := range map[string]tpm.Kind{"P-256": tpm.P256, "RSA 2048": tpm.RSA2048} {
		t.Run(name, func(t *testing.T) {
			chip := swtpm.Start(t)
			chip.Measure(events)
			statement, trust := sha256.Sum256([]byte("release")), sha256.Sum256([]byte("trust"))
			chip.Extend(attest.ReleasePCR, statement, trust, sha256.Sum256([]byte("ticket")))
			id, err := tpm.New(chip.Dial(), kind)
			if err != nil {
				t.Fatal(err)
			}
			inventory := attest.EndorsementHash(id.EK)
			if err := id.Close(); err != nil {
				t.Fatal(err)
			}
			nonce, secret := bytes.Repeat([]byte{1}, attest.NonceBytes), bytes.Repeat([]byte{2}, attest.SecretBytes)
			ask := func(q join.ChallengeRequest) (join.Challenge, error) {
				if err := attest.CheckEndorsement(q.EK, inventory); err != nil {
					return join.Challenge{}, refuse(attest.EKUnknown, "%w", err)
				}
				blob, encrypted, err := attest.MakeCredential(rand.Reader, q.EK, q.AK, secret)
				return join.Challenge{Nonce: nonce, Blob: blob, Encrypted: encrypted}, err
			}
			open := func(kind tpm.Kind) (*tpm.Identity, error) { return tpm.New(chip.Dial(), kind) }
			r := join.Request{Ticket: []byte("ticket"), CSR: []byte("csr"), HostKey: "host", TunnelKey: "tunnel"}
			if err := prove(&r, swtpm.Log(events), open, ask); err != nil {
				t.Fatal(err)
			}
			a := r.Attestation
			got, err := attest.Verify(attest.Evidence{
				EK: a.EK, AK: a.AK, Secret: a.Secret, Quote: a.Quote, Signature: a.Signature, PCRs: a.PCRs, EventLog: a.EventLog,
			}, attest.Expected{
				EndorsementKey: inventory, Nonce: nonce, Secret: secret,
				Bound:   attest.Bound{Ticket: []byte("ticket"), CSR: []byte("csr"), HostKey: []byte("host"), TunnelKey: []byte("tunnel")},
				Release: statement, Trusts: []attest.Digest{trust}, UKI: image, Kernel: kernel,
				Sections: holds(".linux"), LoadedAlone: holds("command line", "initrd"), Loaded: holds("other"),
			})
			if err != nil || !got.Measured {
				t.Errorf("got %+v, %v", got, err)
			}
			if data, err := join.Encode(r); err != nil || len(data) > join.MaxJoin {
				t.Errorf("%d bytes, %v", len(data), err)
			}
		})
	}
}

// holds is what a register holds after these.
func holds(measured ...string) (v [32]byte) {
	for _, m := range measured {
		d := sha256.Sum256([]byte(m))
		v = sha256.Sum256(append(v[:], d[:]...))
	}
	return v
}

// TestProveFails: no TPM, one that the inventory does not name, one that is asked what it cannot answer.
func TestProveFails(t *testing.T) {
	open := func(chip *swtpm.TPM) func(tpm.Kind) (*tpm.Identity, error) {
		return func(kind tpm.Kind) (*tpm.Identity, error) { return tpm.New(chip.Dial(), kind) }
	}
	none := func(tpm.Kind) (*tpm.Identity, error) { return nil, tpm.ErrNone }
	broken := func(tpm.Kind) (*tpm.Identity, error) { return nil, errors.New("broken") }
	for _, tt := range []struct {
		name string
		open func(tpm.Kind) (*tpm.Identity, error)
		ask  func(join.ChallengeRequest) (join.Challenge, error)
		want string
	}{
		{"no TPM", none, nil, codeNoTPM},
		{"broken TPM", broken, nil, codeTPM},
		{"not the inventory's", open(swtpm.Start(t)), func(join.ChallengeRequest) (join.Challenge, error) {
			return join.Challenge{}, refuse(attest.EKUnknown, "another")
		}, attest.EKUnknown},
		{"controller that is away", open(swtpm.Start(t)), func(join.ChallengeRequest) (join.Challenge, error) {
			return join.Challenge{}, refuse(codeJoin, "away")
		}, codeJoin},
		{"challenge of another TPM", open(swtpm.Start(t)), func(join.ChallengeRequest) (join.Challenge, error) {
			return join.Challenge{Nonce: make([]byte, 32), Blob: make([]byte, 68), Encrypted: make([]byte, 68)}, nil
		}, codeTPM},
	} {
		r := join.Request{Ticket: []byte("ticket")}
		if got, _ := code(prove(&r, nil, tt.open, tt.ask)); got != tt.want || r.Attestation != nil {
			t.Errorf("%s: got %s, %v; want %s", tt.name, got, r.Attestation, tt.want)
		}
	}
}

// TestReadLog: the firmware's log is read whole, within its bound, and may be missing.
func TestReadLog(t *testing.T) {
	dir := t.TempDir()
	for name, size := range map[string]int{"good": attest.MaxEventLog, "long": attest.MaxEventLog + 1} {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := tpm.ReadLog(filepath.Join(dir, "good")); err != nil || len(got) != attest.MaxEventLog {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
	if got, err := tpm.ReadLog(filepath.Join(dir, "long")); err == nil {
		t.Errorf("got %d bytes", len(got))
	}
	if got, err := tpm.ReadLog(filepath.Join(dir, "none")); err != nil || got != nil {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
}

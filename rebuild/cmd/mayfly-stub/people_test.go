package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"mayfly/internal/inclusion"
	"mayfly/internal/sshsig"
	"mayfly/policies/ledger"
	"mayfly/policies/trust"
	"mayfly/policies/witness"
	"mayfly/rebuild/release"
)

// Seeds of the test's keys.
const (
	ana, ben, cleo     = 1, 2, 3 // approvers
	ticketKey, listKey = 7, 8
	stranger           = 9
	bo, cy             = 11, 12     // builders
	ida, jon, kim      = 21, 22, 23 // witnesses
	ledgerKey          = 31
)

var names = map[byte]string{ana: "ana", ben: "ben", cleo: "cleo", bo: "bo", cy: "cy", ida: "ida", jon: "jon", kim: "kim"}

func signer(t *testing.T, seed byte) ssh.Signer {
	t.Helper()
	s, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func sign(t *testing.T, namespace string, data []byte, seeds ...byte) []byte {
	t.Helper()
	var out []byte
	for _, seed := range seeds {
		sig, err := sshsig.Sign(signer(t, seed), namespace, data)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, sig...)
	}
	return out
}

func line(t *testing.T, seed byte) string {
	t.Helper()
	return trust.FormatKey(signer(t, seed).PublicKey())
}

func people(t *testing.T, seeds ...byte) (all []trust.Person) {
	t.Helper()
	for _, seed := range seeds {
		all = append(all, trust.Person{Name: names[seed], Keys: []string{line(t, seed)}})
	}
	return all
}

// strict is a trust policy as a fleet has it, but for the evidence of its keys.
func strict(t *testing.T) trust.Trust {
	t.Helper()
	return trust.Trust{
		Kind: trust.Kind, Fleet: "demo", Test: true, Version: 1, MinRelease: 5,
		Approvers: people(t, ana, ben, cleo), Threshold: 2, Builders: people(t, bo, cy), BuilderThreshold: 1,
		Witnesses: people(t, ida, jon, kim), WitnessThreshold: 2, LedgerKeys: []string{line(t, ledgerKey)},
		TicketKeys: []string{line(t, ticketKey)}, ListKeys: []string{line(t, listKey)},
	}
}

// loose is one of a test fleet that asks nobody but its approvers.
func loose(p *trust.Trust) {
	p.Builders, p.BuilderThreshold, p.Witnesses, p.WitnessThreshold, p.LedgerKeys = nil, 0, nil, 0, nil
}

// prove makes a ledger with one other record and this release, and the proof that it holds it, cosigned by these witnesses.
func prove(t *testing.T, statement, sigs []byte, now time.Time, cosigners ...byte) []byte {
	t.Helper()
	compact := func(v any) []byte {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	record := compact(ledger.Release{Kind: ledger.Kind, Statement: string(statement), Signatures: string(sigs)})
	entry := compact(inclusion.Entry{Time: now, Event: ledger.EventRelease, Record: record})
	other := tlog.RecordHash([]byte("other"))
	root := tlog.NodeHash(other, tlog.RecordHash(entry))
	text := inclusion.Checkpoint{Origin: ledger.Origin("demo"), Size: 2, Root: root}.Text()
	log, err := ledger.NewSigner("demo", signer(t, ledgerKey))
	if err != nil {
		t.Fatal(err)
	}
	checkpoint, err := note.Sign(&note.Note{Text: text}, log)
	if err != nil {
		t.Fatal(err)
	}
	for _, seed := range cosigners {
		cosignature, err := witness.Cosign(signer(t, seed), names[seed], text, now)
		if err != nil {
			t.Fatal(err)
		}
		checkpoint = append(checkpoint, cosignature...)
	}
	return inclusion.Proof{Index: 1, Entry: entry, Hashes: []tlog.Hash{other}, Checkpoint: checkpoint}.Marshal()
}

// knows is what a witness of the test says.
type knows struct {
	seed           byte
	version, least uint64 // 0: the attempt's own
	sum            string
	behind         time.Duration // of its clock
	replays        bool          // what it said to another question
	silent         bool          // it is not there
}

func (k knows) serve(t *testing.T, own release.Statement, sum string) http.HandlerFunc {
	if k.version == 0 {
		k.version = own.Version
	}
	if k.least == 0 {
		k.least = 1
	}
	if k.sum == "" {
		k.sum = sum
	}
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(io.LimitReader(r.Body, witness.MaxQuestion+1))
		if err != nil {
			return // who asked has left
		}
		q, err := witness.ParseQuestion(body)
		if err != nil || r.Method != http.MethodPost || r.URL.Path != witness.PathAnswer {
			t.Errorf("%s %s: %v", r.Method, r.URL.Path, err)
		}
		if k.replays {
			q.Nonce = fmt.Sprintf("%x", sha256.Sum256(nil))
		}
		answer, err := witness.SignRelease(signer(t, k.seed), names[k.seed], q, k.version, k.least, k.sum, time.Now().Add(-k.behind))
		if err != nil {
			t.Errorf("answer: %v", err)
		}
		w.Write(answer)
	}
}

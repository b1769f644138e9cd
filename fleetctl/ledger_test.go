package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/mod/sumdb/note"

	"mayfly/fleetctl/witness"
	"mayfly/internal/audit"
	"mayfly/internal/command"
	"mayfly/internal/sshsig"
	"mayfly/policies/ledger"
	"mayfly/policies/trust"
	"mayfly/policies/trust/chain"
	judge "mayfly/rebuild/ledger"
	"mayfly/rebuild/release"
)

// ledgerLab is a fleet's public directory with a ledger, and one witness.
type ledgerLab struct {
	t       *testing.T
	state   state
	trust   *trust.Trust
	log     *audit.Log
	release string // hash of the release that is logged
	witness *witness.Witness
	server  *httptest.Server
}

func ledgerSigner(t *testing.T, seed byte) ssh.Signer {
	t.Helper()
	s, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newLedgerLab(t *testing.T) *ledgerLab {
	t.Helper()
	line := func(seed byte) []string { return []string{trust.FormatKey(ledgerSigner(t, seed).PublicKey())} }
	l := &ledgerLab{t: t, state: state(t.TempDir())}
	l.trust = &trust.Trust{Kind: trust.Kind, Fleet: "demo", Test: true, Version: 1, Threshold: 1,
		Approvers: []trust.Person{{Name: "ana", Keys: line(1)}}, TicketKeys: line(2), ListKeys: line(3), LedgerKeys: line(4),
		Witnesses: []trust.Person{{Name: "ida", Keys: line(5)}}, WitnessThreshold: 1}
	data, err := l.trust.Marshal()
	l.check(err)
	l.check(os.MkdirAll(l.state.releases(), 0o755))
	l.check(chain.Write(l.state.chainDir(), 1, data, nil))
	l.check(os.WriteFile(l.state.trustFile(), data, 0o644))
	l.log = l.open(4)
	l.log1(ledger.EventTrust, ledger.Trust{Kind: ledger.Kind, Version: 1, SHA256: l.trust.Sum()})
	l.logRelease(7, true)
	l.witness, err = witness.Open(witness.Options{Trust: l.trust, Key: ledgerSigner(t, 5), State: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	l.check(err)
	t.Cleanup(func() { l.check(l.witness.Close()) })
	l.server = httptest.NewServer(l.witness.Handler())
	t.Cleanup(l.server.Close)
	return l
}

func (l *ledgerLab) check(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

func (l *ledgerLab) open(seed byte) *audit.Log {
	l.t.Helper()
	key := ledgerSigner(l.t, seed)
	s, err := ledger.NewSigner("demo", key)
	l.check(err)
	v, err := ledger.Verifier("demo", trust.FormatKey(key.PublicKey()))
	l.check(err)
	log, err := audit.Open(audit.Options{Dir: l.state.ledger(), Own: &audit.Own{Signer: s, Verifier: v}})
	l.check(err)
	l.t.Cleanup(func() {
		if err := log.Close(); err != nil && !strings.Contains(err.Error(), "closed") {
			l.t.Error(err)
		}
	})
	return log
}

func (l *ledgerLab) log1(event string, record any) {
	l.t.Helper()
	l.check(l.log.Append(event, record))
}

func (l *ledgerLab) logRelease(version uint64, signed bool) {
	l.t.Helper()
	part := release.Part{Size: 3, SHA256: strings.Repeat("ab", 32)}
	s := release.Statement{Kind: release.Kind, Fleet: "demo", Version: version, Least: 1, Profile: release.ProfileCloud,
		NotBefore: time.Now().Add(-time.Hour).UTC().Truncate(time.Second), NotAfter: time.Now().Add(time.Hour).UTC().Truncate(time.Second),
		MaxAge: 86400, Kernel: part, Stub: part, Root: part, Lock: strings.Repeat("cd", 32), MinPolicy: 1}
	data, err := s.Marshal()
	l.check(err)
	namespace := release.Namespace
	if !signed {
		namespace = "another"
	}
	sig, err := sshsig.Sign(ledgerSigner(l.t, 1), namespace, data)
	l.check(err)
	sum := sha256.Sum256(data)
	l.release = hex.EncodeToString(sum[:])
	l.log1(ledger.EventRelease, ledger.Release{Kind: ledger.Kind, Statement: string(data), Signatures: string(sig)})
}

func (l *ledgerLab) life(server string, epoch uint64, change func(*ledger.Begin)) {
	l.t.Helper()
	began := time.Now().UTC().Truncate(time.Second)
	b := ledger.Begin{Kind: ledger.Kind, Server: server, Epoch: epoch, Release: 7, ReleaseSHA256: l.release, Began: began,
		Deadline: began.Add(24 * time.Hour), Evidence: ledger.Claimed, TLSKey: strings.Repeat("01", 32), HostKey: strings.Repeat("02", 32)}
	if change != nil {
		change(&b)
	}
	l.log1(ledger.EventBegin, b)
}

// cosigned waits until the witness has seen all that is in the log, as `fleetctl serve` brings it.
func (l *ledgerLab) cosigned() {
	l.t.Helper()
	l.check(l.log.Close())
	keys, err := ledger.KeysOf(l.trust)
	l.check(err)
	ctx, cancel := context.WithCancel(l.t.Context())
	var done sync.WaitGroup
	done.Go(func() {
		if err := l.state.offerLedger(ctx, l.trust, []string{l.server.URL}, slog.New(slog.DiscardHandler)); err != nil {
			l.t.Error(err)
		}
	})
	for end := time.Now().Add(time.Minute); ; <-time.After(10 * time.Millisecond) {
		signed, err := os.ReadFile(filepath.Join(l.state.ledger(), audit.CheckpointFile))
		l.check(err)
		data, err := os.ReadFile(filepath.Join(l.state.ledger(), audit.WitnessedFile))
		if err == nil && bytes.HasPrefix(data, signed) {
			if _, err = keys.Checkpoint(data); err == nil {
				break
			}
		}
		if time.Now().After(end) {
			l.t.Fatalf("not cosigned: %v", err)
		}
	}
	cancel()
	done.Wait()
}

// goOn opens the log again.
func (l *ledgerLab) goOn() { l.log = l.open(4) }

func (l *ledgerLab) run(args ...string) (code int, stdout, stderr string) {
	l.t.Helper()
	var out, errs bytes.Buffer
	code = run(l.t.Context(), args, strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

func (l *ledgerLab) verify(more ...string) (code int, stdout, stderr string) {
	l.t.Helper()
	return l.run(append([]string{"ledger", "verify", "--ledger", l.state.ledger(), "--trust", l.state.trustFile()}, more...)...)
}

// TestLedgerVerify is what an outsider does: from a directory, then from a URL, each time with what was seen before.
func TestLedgerVerify(t *testing.T) {
	l := newLedgerLab(t)
	for i := range 300 { // more than a tile
		l.life(fmt.Sprintf("se-%d", i), 1, nil)
	}
	l.cosigned()
	seen := filepath.Join(t.TempDir(), "seen")
	code, out, stderr := l.verify("--state", seen, "-o", "json")
	if code != command.OK {
		t.Fatalf("got %d: %s%s", code, out, stderr)
	}
	var got verifiedLedger
	l.check(json.Unmarshal([]byte(out), &got))
	if got.Size != 302 || got.Cosigned != 302 || got.Lives != 300 || len(got.Running) != 300 || got.Claimed != 300 || got.Wrong != 0 || len(got.By) != 1 || got.By[0].Witness != "ida" || got.Seen != nil {
		t.Errorf("got %s", out[:min(len(out), 500)])
	}

	l.goOn()
	l.life("se-300", 1, nil)
	l.log1(ledger.EventEnd, ledger.End{Kind: ledger.Kind, Server: "se-1", Epoch: 1, Ended: time.Now().UTC().Truncate(time.Second), Reason: ledger.Rotated})
	l.cosigned()
	web := httptest.NewServer(http.FileServer(http.Dir(l.state.public())))
	defer web.Close()
	trustOnly := filepath.Join(t.TempDir(), "trust.json")
	data, err := os.ReadFile(l.state.trustFile())
	l.check(err)
	l.check(os.WriteFile(trustOnly, data, 0o600))
	code, out, stderr = l.run("ledger", "verify", "--ledger", web.URL+"/ledger", "--trust", trustOnly, "--state", seen)
	if code != command.OK || !strings.Contains(out, "300: 0 attested, 300 claimed") && !strings.Contains(out, "301: 0 attested, 301 claimed") || !strings.Contains(stderr, "304 entries hold, 304 of them seen") {
		t.Errorf("from a URL: got %d: %s%s", code, out[:min(len(out), 500)], stderr)
	}
	if code, out, _ = l.run("ledger", "show", "--ledger", web.URL+"/ledger/", "--server", "se-1"); code != command.OK || strings.Count(out, "se-1 ") != 2 || !strings.Contains(out, "rotated") {
		t.Errorf("show: got %d: %s", code, out)
	}
	proof := filepath.Join(t.TempDir(), "proof")
	if code, _, stderr = l.run("ledger", "proof", "--dir", string(l.state), "--index", "303", "--out", proof); code != command.OK {
		t.Fatalf("proof: got %d: %s", code, stderr)
	}
	text, err := os.ReadFile(proof)
	l.check(err)
	keys, err := ledger.KeysOf(l.trust)
	l.check(err)
	if p, err := keys.Open(text); err != nil || p.Entry.End == nil {
		t.Errorf("the proof shows %+v, %v", p, err)
	}
	if code, _, stderr = l.run("ledger", "proof", "--dir", string(l.state), "--index", "304"); code == command.OK || !strings.Contains(stderr, "304") {
		t.Errorf("a proof of nothing: got %d: %s", code, stderr)
	}
	if code, out, _ = l.run("ledger", "key", "--trust", trustOnly); code != command.OK || !strings.HasPrefix(out, "mayfly/demo/ledger+") {
		t.Errorf("key: got %d: %s", code, out)
	}
}

// TestLedgerVerifyRefuses has one row for each thing that somebody may do to a ledger.
func TestLedgerVerifyRefuses(t *testing.T) {
	file := func(l *ledgerLab, name string) string { return filepath.Join(l.state.ledger(), name) }
	spoil := func(l *ledgerLab, name string, change func([]byte) []byte) {
		data, err := os.ReadFile(file(l, name))
		l.check(err)
		l.check(os.WriteFile(file(l, name), change(data), 0o600))
	}
	bundle := "tile/entries/000.p/3"
	// again is the same ledger made anew by whoever holds its key, with another life.
	again := func(l *ledgerLab) {
		l.check(os.RemoveAll(l.state.ledger()))
		l.goOn()
		l.log1(ledger.EventTrust, ledger.Trust{Kind: ledger.Kind, Version: 1, SHA256: l.trust.Sum()})
		l.logRelease(7, true)
		l.life("another", 1, nil)
	}
	seenFirst := func(l *ledgerLab) { // what verify --state wrote before
		if code, _, stderr := l.verify("--state", string(l.state)+"/seen"); code != command.OK {
			l.t.Fatal(stderr)
		}
	}
	for _, tt := range []struct {
		name string
		do   func(l *ledgerLab)
		args []string
		code int
		want string
	}{
		{"nothing", func(l *ledgerLab) { l.cosigned() }, nil, command.OK, "entries hold"},
		{"an entry altered", func(l *ledgerLab) {
			l.cosigned()
			spoil(l, bundle, func(b []byte) []byte {
				return bytes.Replace(b, []byte(`"server":"se-1"`), []byte(`"server":"se-2"`), 1)
			})
		}, nil, command.Refused, ledgerBroken},
		{"a bundle cut short", func(l *ledgerLab) { l.cosigned(); spoil(l, bundle, func(b []byte) []byte { return b[:len(b)-9] }) }, nil, command.Refused, ledgerBroken},
		{"a bundle gone", func(l *ledgerLab) { l.cosigned(); l.check(os.Remove(file(l, bundle))) }, nil, command.Refused, ledgerBroken},
		{"no witness", func(l *ledgerLab) { l.check(l.log.Close()) }, nil, command.Refused, ledger.Split},
		{"more witnesses asked", func(l *ledgerLab) { l.cosigned() }, []string{"--witness-threshold", "2"}, command.Refused, ledger.Split},
		{"witnesses long ago", func(l *ledgerLab) { l.cosigned() }, []string{"--stale", "1ns"}, command.Refused, ledgerStale},
		{"another key", func(l *ledgerLab) {
			l.check(l.log.Close())
			l.check(os.RemoveAll(l.state.ledger()))
			l.check(l.open(9).Close())
		}, nil, command.Refused, ledger.Unlogged},
		{"a checkpoint that witnesses did not see", func(l *ledgerLab) {
			l.cosigned()
			old, err := os.ReadFile(file(l, audit.WitnessedFile))
			l.check(err)
			again(l)
			l.check(l.log.Close())
			l.check(os.WriteFile(file(l, audit.WitnessedFile), old, 0o600))
		}, nil, command.Refused, ledgerBroken},
		{"begun anew", func(l *ledgerLab) {
			l.cosigned()
			seenFirst(l)
			again(l)
			l.check(l.log.Close())
			l.trust.WitnessThreshold = 0 // even where witnesses let it pass
			data, err := l.trust.Marshal()
			l.check(err)
			l.check(os.WriteFile(l.state.trustFile(), data, 0o600))
			l.check(chain.Write(l.state.chainDir(), 1, data, nil))
		}, []string{"--state", "STATE/seen"}, command.Refused, ledgerForked},
		{"cut off", func(l *ledgerLab) {
			short := string(l.state) + "/short"
			l.check(l.log.Close())
			l.check(os.CopyFS(short, os.DirFS(l.state.ledger())))
			l.goOn()
			l.life("se-2", 1, nil)
			l.cosigned()
			seenFirst(l)
			witnessed, err := os.ReadFile(filepath.Join(short, audit.CheckpointFile))
			l.check(err)
			text, _, _ := strings.Cut(string(witnessed), "\n\n")
			cosignature, err := l.witnessLine(text + "\n")
			l.check(err)
			l.check(os.WriteFile(filepath.Join(short, audit.WitnessedFile), append(witnessed, cosignature...), 0o600))
			l.check(os.RemoveAll(l.state.ledger()))
			l.check(os.Rename(short, l.state.ledger()))
		}, []string{"--state", "STATE/seen"}, command.Refused, ledgerForked},
		{"an unsigned release", func(l *ledgerLab) { l.logRelease(8, false); l.cosigned() }, nil, command.Refused, release.Unsigned},
		{"a life too long", func(l *ledgerLab) {
			l.life("se-2", 1, func(b *ledger.Begin) { b.Deadline = b.Deadline.Add(time.Hour) })
			l.cosigned()
		}, nil, command.Refused, judge.LifeTooLong},
		{"a shorter life asked", func(l *ledgerLab) { l.cosigned() }, []string{"--max-age", "1h"}, command.Refused, judge.LifeTooLong},
		{"a proof of each boot asked", func(l *ledgerLab) { l.cosigned() }, []string{"--attested"}, command.Refused, judge.LifeEvidence},
		{"two lives at once", func(l *ledgerLab) { l.life("se-1", 2, nil); l.cosigned() }, nil, command.Refused, judge.LivesOverlap},
		{"a trust policy of nobody", func(l *ledgerLab) {
			l.log1(ledger.EventTrust, ledger.Trust{Kind: ledger.Kind, Version: 2, SHA256: strings.Repeat("ab", 32)})
			l.cosigned()
		}, nil, command.Refused, judge.TrustUnknown},
		{"a step of the trust policy that does not follow", func(l *ledgerLab) {
			l.cosigned()
			l.check(os.WriteFile(chain.File(l.state.chainDir(), 2), []byte("{}"), 0o600))
		}, nil, command.Refused, "trust policies"},
		{"no ledger", func(l *ledgerLab) { l.check(l.log.Close()); l.check(os.RemoveAll(l.state.ledger())) }, nil, command.Failed, "no ledger in"},
		{"a state that is none", func(l *ledgerLab) {
			l.cosigned()
			l.check(os.WriteFile(string(l.state)+"/seen", []byte("rubbish"), 0o600))
		}, []string{"--state", "STATE/seen"}, command.Refused, ledgerForked},
		{"a URL that is none", func(l *ledgerLab) { l.check(l.log.Close()) }, []string{"--ledger", "ftp://x/"}, command.Usage, "want a directory, or a URL"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLedgerLab(t)
			l.life("se-1", 1, nil)
			tt.do(l)
			for i := range tt.args {
				tt.args[i] = strings.Replace(tt.args[i], "STATE", string(l.state), 1)
			}
			code, out, stderr := l.verify(tt.args...)
			if code != tt.code || !strings.Contains(out+stderr, tt.want) {
				t.Errorf("got %d, want %d with %q:\n%s%s", code, tt.code, tt.want, out, stderr)
			}
		})
	}
}

// witnessLine is what the witness would sign if it forgot what it had seen.
func (l *ledgerLab) witnessLine(text string) ([]byte, error) {
	w, err := witness.Open(witness.Options{Trust: l.trust, Key: ledgerSigner(l.t, 5), State: l.t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	key := ledgerSigner(l.t, 4)
	s, err := ledger.NewSigner("demo", key)
	if err != nil {
		return nil, err
	}
	signed, err := note.Sign(&note.Note{Text: text}, s)
	if err != nil {
		return nil, err
	}
	line, err := w.AddCheckpoint(append([]byte("old 0\n\n"), signed...), time.Now())
	if err != nil {
		return nil, err
	}
	return line, w.Close()
}

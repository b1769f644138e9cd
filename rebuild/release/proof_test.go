package release

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"mayfly/internal/audit"
	"mayfly/internal/inclusion"
	"mayfly/policies/ledger"
	"mayfly/policies/trust"
	"mayfly/policies/witness"
)

// Seeds of the keys in logged.
const (
	seedLedger = 30
	seedIda    = 31
	seedJon    = 32
	seedKim    = 33
	seedKim2   = 34
	seedOther  = 40
)

// logged is a fleet with a ledger and three witnesses, of whom two must cosign.
func logged(t testing.TB) *trust.Trust {
	t.Helper()
	line := func(seed byte) string { return trust.FormatKey(signer(t, seed).PublicKey()) }
	p := policy(t)
	p.LedgerKeys = []string{line(seedOther + 1), line(seedLedger)}
	p.Witnesses = []trust.Person{{Name: "ida", Keys: []string{line(seedIda)}}, {Name: "jon", Keys: []string{line(seedJon)}}, {Name: "kim", Keys: []string{line(seedKim), line(seedKim2)}}}
	p.WitnessThreshold = 2
	return p
}

// ledger is a log in memory.
type book struct {
	t       testing.TB
	origin  string
	seed    byte
	entries [][]byte
	hashes  []tlog.Hash
}

func (l *book) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	var list []tlog.Hash
	for _, i := range indexes {
		list = append(list, l.hashes[i])
	}
	return list, nil
}

func (l *book) add(event string, record any) (index int64) {
	l.t.Helper()
	body, err := json.Marshal(record)
	check(l.t, err)
	entry, err := json.Marshal(inclusion.Entry{Time: now, Event: event, Record: body})
	check(l.t, err)
	index = int64(len(l.entries))
	hashes, err := tlog.StoredHashes(index, entry, l)
	check(l.t, err)
	l.entries, l.hashes = append(l.entries, entry), append(l.hashes, hashes...)
	return index
}

// checkpoint is signed under the ledger's key, with lines below.
func (l *book) checkpoint(lines ...string) []byte {
	l.t.Helper()
	text := l.text()
	return []byte(text + "\n" + l.signed(text) + strings.Join(lines, ""))
}

func (l *book) text() string {
	root, err := tlog.TreeHash(int64(len(l.entries)), l)
	check(l.t, err)
	return inclusion.Checkpoint{Origin: l.origin, Size: uint64(len(l.entries)), Root: root}.Text()
}

func (l *book) signed(text string) string {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{l.seed}, ed25519.SeedSize))
	v, err := ledger.Verifier(strings.TrimSuffix(strings.TrimPrefix(l.origin, "mayfly/"), "/ledger"), trust.FormatKey(signer(l.t, l.seed).PublicKey()))
	check(l.t, err)
	signed, err := note.Sign(&note.Note{Text: text}, noteKey{v, key})
	check(l.t, err)
	return string(signed[len(text)+1:])
}

func (l *book) prove(index int64, checkpoint []byte) []byte {
	l.t.Helper()
	hashes, err := tlog.ProveRecord(int64(len(l.entries)), index, l)
	check(l.t, err)
	return inclusion.Proof{Index: uint64(index), Entry: l.entries[index], Hashes: hashes, Checkpoint: checkpoint}.Marshal()
}

// cosigned is a witness's line under the ledger's present checkpoint.
func (l *book) cosigned(seed byte, name string) string {
	l.t.Helper()
	line, err := witness.Cosign(signer(l.t, seed), name, l.text(), now)
	check(l.t, err)
	return string(line)
}

type noteKey struct {
	note.Verifier
	key ed25519.PrivateKey
}

func (k noteKey) Sign(msg []byte) ([]byte, error) { return ed25519.Sign(k.key, msg), nil }

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func record(statement, sigs []byte) ledger.Release {
	return ledger.Release{Kind: ledger.Kind, Statement: string(statement), Signatures: string(sigs)}
}

func TestCheckProof(t *testing.T) {
	statement := marshal(t, statement())
	fill := func(l *book) (index int64) {
		l.add("trust", ledger.Trust{Kind: ledger.Kind, Version: 1, SHA256: strings.Repeat("ab", 32)})
		index = l.add(ledger.EventRelease, record(statement, sign(t, statement, 1, 2)))
		for range 5 {
			l.add("begin", map[string]string{"server": "x"})
		}
		return index
	}
	l := &book{t: t, origin: ledger.Origin("demo"), seed: seedLedger}
	index := fill(l)
	ida, jon, kim, kim2 := l.cosigned(seedIda, "ida"), l.cosigned(seedJon, "jon"), l.cosigned(seedKim, "kim"), l.cosigned(seedKim2, "kim")
	good := l.prove(index, l.checkpoint(ida, jon))
	with := func(lines ...string) []byte { return l.prove(index, l.checkpoint(lines...)) }
	// another history of the same size, cosigned by nobody here
	split := &book{t: t, origin: l.origin, seed: seedLedger}
	fill(split)
	split.entries, split.hashes = nil, nil
	split.add("trust", ledger.Trust{Kind: ledger.Kind, Version: 2, SHA256: strings.Repeat("ab", 32)})
	splitAt := fill(split)
	elsewhere := &book{t: t, origin: ledger.Origin("else"), seed: seedLedger}
	elsewhereAt := fill(elsewhere)
	strangers := &book{t: t, origin: l.origin, seed: seedOther}
	strangersAt := fill(strangers)
	damaged := func(line string) string { // with another last byte of the signature
		head, text, _ := strings.Cut(strings.TrimPrefix(line, "— "), " ")
		raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
		check(t, err)
		raw[len(raw)-1] ^= 1
		return fmt.Sprintf("— %s %s\n", head, base64.StdEncoding.EncodeToString(raw))
	}
	loose := &book{t: t, origin: l.origin, seed: seedLedger}
	looseAt := loose.add(ledger.EventRelease, struct {
		ledger.Release
		More string `json:"more"`
	}{record(statement, sign(t, statement, 1, 2)), "x"})
	kind := &book{t: t, origin: l.origin, seed: seedLedger}
	kindAt := kind.add(ledger.EventRelease, ledger.Release{Kind: "mayfly-ledger/0", Statement: string(statement), Signatures: "x"})
	for _, tt := range []struct {
		name  string
		proof []byte
		want  string
		by    string
	}{
		{"good", good, "", "ida jon"},
		{"three, in another order", with(kim, jon, ida), "", "ida jon kim"},
		{"a stranger's lines, malformed ones and damaged ones between", with("— mallory AAAA\n", l.cosigned(seedOther, "jon"), damaged(ida), "junk\n", "— ida\n", "— ida !!!\n", "— ida AAAA\n", ida, damaged(jon), jon), "", "ida jon"},
		{"none", nil, Unlogged, ""},
		{"junk", []byte("junk"), LogMalformed, ""},
		{"cut short", good[:len(good)/3], LogMalformed, ""},
		{"too long", make([]byte, inclusion.MaxProof+1), LogMalformed, ""},
		{"no checkpoint", l.prove(index, nil), LogMalformed, ""},
		{"a checkpoint without signatures", l.prove(index, []byte(l.text()+"\n")), Unlogged, ""},
		{"no witness", with(), LogSplit, ""},
		{"one", with(ida), LogSplit, ""},
		{"one twice", with(ida, ida), LogSplit, ""},
		{"one with two keys", with(kim, kim2), LogSplit, ""},
		{"one and a damaged one", with(ida, damaged(jon)), LogSplit, ""},
		{"one in another's name", with(ida, l.cosigned(seedIda, "jon")), LogSplit, ""},
		{"one of another checkpoint", with(ida, split.cosigned(seedJon, "jon")), LogSplit, ""},
		{"too many lines", with(ida, jon, strings.Repeat("— x AAAA\n", 300)), LogMalformed, ""},
		{"another record's hashes", inclusion.Proof{Index: uint64(index), Entry: l.entries[index], Hashes: mustHashes(t, l, 4), Checkpoint: l.checkpoint(ida, jon)}.Marshal(), LogSplit, ""},
		{"beyond the end", inclusion.Proof{Index: 99, Entry: l.entries[index], Checkpoint: l.checkpoint(ida, jon)}.Marshal(), LogSplit, ""},
		{"a record that is not there", inclusion.Proof{Index: uint64(index), Entry: split.entries[0], Hashes: mustHashes(t, l, index), Checkpoint: l.checkpoint(ida, jon)}.Marshal(), LogSplit, ""},
		{"a split view: our history's cosignatures under another root", split.prove(splitAt, split.checkpoint(ida, jon)), LogSplit, ""},
		{"a split view: our cosigned checkpoint, another history's proof", split.prove(splitAt, l.checkpoint(ida, jon)), LogSplit, ""},
		{"another fleet's ledger", elsewhere.prove(elsewhereAt, elsewhere.checkpoint(elsewhere.cosigned(seedIda, "ida"), elsewhere.cosigned(seedJon, "jon"))), Unlogged, ""},
		{"a stranger's ledger", strangers.prove(strangersAt, strangers.checkpoint(strangers.cosigned(seedIda, "ida"), strangers.cosigned(seedJon, "jon"))), Unlogged, ""},
		{"a record of another kind", l.prove(0, l.checkpoint(ida, jon)), Unlogged, ""},
		{"a record with more in it", loose.prove(looseAt, loose.checkpoint(loose.cosigned(seedIda, "ida"), loose.cosigned(seedJon, "jon"))), LogMalformed, ""},
		{"a record of an older kind", kind.prove(kindAt, kind.checkpoint(kind.cosigned(seedIda, "ida"), kind.cosigned(seedJon, "jon"))), LogMalformed, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ReadProof(logged(t), statement, tt.proof)
			if reason := reasonOf(err); reason != tt.want {
				t.Fatalf("got %q (%v), want %q", reason, err, tt.want)
			}
			if tt.want == "" && (strings.Join(got.Witnesses, " ") != tt.by || got.Index != uint64(index) || got.Size != 7 || got.Origin != "mayfly/demo/ledger" || !got.Time.Equal(now)) {
				t.Errorf("got %+v, want witnesses %s", got, tt.by)
			}
		})
	}
	if err := CheckProof(logged(t), append(bytes.Clone(statement), '\n'), good); reasonOf(err) != Unlogged {
		t.Errorf("another statement: %v, want %s", err, Unlogged)
	}
}

// TestCheckProofTrust asks under trust policies that name no ledger, or no witnesses.
func TestCheckProofTrust(t *testing.T) {
	statement := marshal(t, statement())
	l := &book{t: t, origin: ledger.Origin("demo"), seed: seedLedger}
	index := l.add(ledger.EventRelease, record(statement, sign(t, statement, 1, 2)))
	bare := l.prove(index, l.checkpoint())
	change := func(f func(*trust.Trust)) *trust.Trust {
		p := logged(t)
		f(p)
		return p
	}
	for _, tt := range []struct {
		name  string
		trust *trust.Trust
		proof []byte
		want  string
	}{
		{"nil", nil, bare, Unlogged},
		{"zero", new(trust.Trust), bare, Unlogged},
		{"no ledger in earnest", change(func(p *trust.Trust) { p.LedgerKeys, p.Test = nil, false }), bare, Unlogged},
		{"no ledger in a test fleet", change(func(p *trust.Trust) { p.LedgerKeys = nil }), nil, ""},
		{"no witnesses in earnest", change(func(p *trust.Trust) { p.WitnessThreshold, p.Test = 0, false }), bare, Unlogged},
		{"no witnesses in a test fleet", change(func(p *trust.Trust) { p.WitnessThreshold = 0 }), bare, ""},
		{"no witnesses in a test fleet, and no proof", change(func(p *trust.Trust) { p.WitnessThreshold = 0 }), nil, Unlogged},
		{"threshold -1", change(func(p *trust.Trust) { p.WitnessThreshold = -1 }), bare, Unlogged},
		{"a ledger key of another type", change(func(p *trust.Trust) { p.LedgerKeys = []string{"ssh-rsa AAAA"} }), bare, Unlogged},
	} {
		if err := CheckProof(tt.trust, statement, tt.proof); reasonOf(err) != tt.want {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}

func mustHashes(t testing.TB, l *book, index int64) []tlog.Hash {
	t.Helper()
	hashes, err := tlog.ProveRecord(int64(len(l.entries)), index, l)
	check(t, err)
	return hashes
}

// TestProofOfAudit: what internal/audit writes and proves is what CheckProof takes.
func TestProofOfAudit(t *testing.T) {
	statement := marshal(t, statement())
	dir := filepath.Join(t.TempDir(), "ledger")
	log, err := audit.Open(audit.Options{Dir: dir, Name: ledger.Origin("demo")})
	check(t, err)
	for i := range 300 { // more than a tile
		check(t, log.Append("begin", map[string]int{"n": i}))
	}
	check(t, log.Append(ledger.EventRelease, record(statement, sign(t, statement, 1, 2))))
	check(t, log.Append("end", map[string]int{"n": 1}))
	check(t, log.Close())
	p, err := audit.Prove(dir, 300)
	check(t, err)
	verifier, err := audit.ReadVerifier(filepath.Join(dir, audit.KeyName+".pub"))
	check(t, err)
	c, _, err := audit.OpenCheckpoint(p.Checkpoint, verifier)
	check(t, err)
	for seed, name := range map[byte]string{seedIda: "ida", seedJon: "jon"} {
		line, err := witness.Cosign(signer(t, seed), name, c.Text(), now)
		check(t, err)
		p.Checkpoint = append(p.Checkpoint, line...)
	}
	policy := logged(t)
	if err := CheckProof(policy, statement, p.Marshal()); reasonOf(err) != Unlogged {
		t.Errorf("under a key that is not the ledger's: %v, want %s", err, Unlogged)
	}
	policy.LedgerKeys = []string{ledgerKey(t, filepath.Join(dir, audit.KeyName+".pub"))}
	if err := CheckProof(policy, statement, p.Marshal()); err != nil {
		t.Error(err)
	}
}

// ledgerKey is the key of a log's verifier key in the form of trust.json.
func ledgerKey(t testing.TB, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	check(t, err)
	parts := strings.SplitN(strings.TrimSpace(string(data)), "+", 3)
	raw, err := base64.StdEncoding.DecodeString(parts[len(parts)-1])
	check(t, err)
	if len(raw) != 1+ed25519.PublicKeySize {
		t.Fatalf("%s is no Ed25519 key", data)
	}
	key, err := ssh.NewPublicKey(ed25519.PublicKey(raw[1:]))
	check(t, err)
	return trust.FormatKey(key)
}

func FuzzCheckProof(f *testing.F) {
	statement := marshal(f, statement())
	l := &book{t: f, origin: ledger.Origin("demo"), seed: seedLedger}
	l.add("trust", ledger.Trust{Kind: ledger.Kind, Version: 1, SHA256: strings.Repeat("ab", 32)})
	index := l.add(ledger.EventRelease, record(statement, sign(f, statement, 1, 2)))
	l.add("begin", map[string]int{"n": 1})
	policy := logged(f)
	good := l.prove(index, l.checkpoint(l.cosigned(seedIda, "ida"), l.cosigned(seedJon, "jon")))
	f.Add(good)
	f.Add(l.prove(index, l.checkpoint(l.cosigned(seedIda, "ida"))))
	f.Add(l.prove(0, l.checkpoint(l.cosigned(seedIda, "ida"), l.cosigned(seedJon, "jon"))))
	f.Add(bytes.ReplaceAll(good, []byte("— "), []byte("- ")))
	f.Add([]byte("c2sp.org/tlog-proof@v1\nextra \nindex 0\n\nx\n0\n\n\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := ReadProof(policy, statement, data)
		if err != nil {
			if _, ok := errors.AsType[*Refusal](err); !ok {
				t.Errorf("%q: not a refusal: %v", data, err)
			}
			return
		}
		p, err := inclusion.ParseProof(data)
		if err != nil || !bytes.Equal(p.Entry, l.entries[index]) || got.Index != uint64(index) || got.Size != 3 || got.Time != now.Truncate(time.Second) {
			t.Errorf("%q: accepted as %+v", data, got)
		}
	})
}

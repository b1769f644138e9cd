package ledger

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"mayfly/internal/inclusion"
	"mayfly/policies/trust"
	"mayfly/policies/witness"
)

var now = time.Date(2026, time.November, 20, 12, 0, 0, 0, time.UTC)

func key(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
}

func sshKey(t testing.TB, seed byte) ssh.Signer {
	t.Helper()
	s, err := ssh.NewSignerFromKey(key(seed))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func line(t testing.TB, seed byte) string { return trust.FormatKey(sshKey(t, seed).PublicKey()) }

func entry(t testing.TB, event string, record any) []byte {
	t.Helper()
	body, err := json.Marshal(record)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(inclusion.Entry{Time: now, Event: event, Record: body})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func begin(change func(*Begin)) Begin {
	hash := sha256.Sum256(key(7).Public().(ed25519.PublicKey))
	b := Begin{Kind: Kind, Server: "se-1", Epoch: 3, Release: 7, ReleaseSHA256: strings.Repeat("ab", 32), Began: now.Add(-time.Hour),
		Deadline: now.Add(time.Hour), Evidence: Attested, TLSKey: hex.EncodeToString(hash[:]), HostKey: strings.Repeat("cd", 32)}
	if change != nil {
		change(&b)
	}
	return b
}

func goodRecords() map[string]any {
	return map[string]any{
		EventRelease: Release{Kind: Kind, Statement: "{\n}\n", Signatures: "block <&>\n"},
		EventTrust:   Trust{Kind: Kind, Version: 1, SHA256: strings.Repeat("ab", 32)},
		EventBegin:   begin(nil),
		EventEnd:     End{Kind: Kind, Server: "se-1", Epoch: 3, Ended: now, Reason: Rotated},
		EventTorn:    map[string]int{"bytes": 3},
	}
}

func TestParse(t *testing.T) {
	for event, record := range goodRecords() {
		if e, err := Parse(entry(t, event, record)); err != nil || e.Event != event || !e.Time.Equal(now) {
			t.Errorf("%s: got %+v, %v", event, e, err)
		}
	}
	hash := strings.Repeat("ab", 32)
	bad := map[string][]byte{
		"another event":      entry(t, "login", begin(nil)),
		"too long":           append(entry(t, EventBegin, begin(nil)), make([]byte, MaxEntry)...),
		"of another kind":    entry(t, EventTrust, Trust{Kind: "mayfly-ledger/2", Version: 1, SHA256: hash}),
		"a field more":       entry(t, EventTrust, map[string]any{"kind": Kind, "version": 1, "sha256": hash, "x": 1}),
		"another order":      []byte(strings.Replace(string(entry(t, EventTrust, Trust{Kind, 1, hash})), `"version":1,"sha256":"`+hash+`"`, `"sha256":"`+hash+`","version":1`, 1)),
		"white space":        []byte(strings.Replace(string(entry(t, EventTrust, Trust{Kind, 1, hash})), `,"version"`, `, "version"`, 1)),
		"no version":         entry(t, EventTrust, Trust{Kind, 0, hash}),
		"hash in capitals":   entry(t, EventTrust, Trust{Kind, 1, strings.ToUpper(hash)}),
		"release kind":       entry(t, EventRelease, Release{"x", "s", "s"}),
		"release empty":      entry(t, EventRelease, Release{Kind, "", "s"}),
		"release unsigned":   entry(t, EventRelease, Release{Kind, "s", ""}),
		"release too long":   entry(t, EventRelease, Release{Kind, strings.Repeat("s", MaxStatement+1), "s"}),
		"signatures long":    entry(t, EventRelease, Release{Kind, "s", strings.Repeat("s", MaxSignatures+1)}),
		"end kind":           entry(t, EventEnd, End{"x", "a", 1, now, Rotated}),
		"end server":         entry(t, EventEnd, End{Kind, "A", 1, now, Rotated}),
		"end epoch":          entry(t, EventEnd, End{Kind, "a", 0, now, Rotated}),
		"end time":           entry(t, EventEnd, End{Kind, "a", 1, now.Add(time.Millisecond), Rotated}),
		"end reason":         entry(t, EventEnd, End{Kind, "a", 1, now, "because"}),
		"end in local time":  entry(t, EventEnd, End{Kind, "a", 1, now.In(time.FixedZone("x", 3600)), Rotated}),
		"nothing":            nil,
		"only an entry":      []byte("{}"),
		"null for a record":  []byte(`{"time":"2026-11-20T12:00:00Z","event":"trust","record":null}`),
		"a word for record":  []byte(`{"time":"2026-11-20T12:00:00Z","event":"trust","record":"x"}`),
		"begin without time": entry(t, EventBegin, begin(func(b *Begin) { b.Began = time.Time{} })),
	}
	for name, change := range map[string]func(*Begin){
		"kind": func(b *Begin) { b.Kind = "" }, "server": func(b *Begin) { b.Server = "a.b" }, "epoch": func(b *Begin) { b.Epoch = 0 },
		"release": func(b *Begin) { b.Release = 0 }, "release hash": func(b *Begin) { b.ReleaseSHA256 = "ab" },
		"deadline": func(b *Begin) { b.Deadline = b.Began }, "evidence": func(b *Begin) { b.Evidence = "sure" },
		"tls key": func(b *Begin) { b.TLSKey = "" }, "host key": func(b *Begin) { b.HostKey = "x" },
	} {
		bad["begin "+name] = entry(t, EventBegin, begin(change))
	}
	for name, text := range bad {
		if e, err := Parse(text); err == nil {
			t.Errorf("%s: got %+v, want an error", name, e)
		}
	}
}

// testLog is a log of a few entries, signed and cosigned.
type testLog struct {
	entries [][]byte
	hashes  []tlog.Hash
}

func (l *testLog) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	var out []tlog.Hash
	for _, i := range indexes {
		out = append(out, l.hashes[i])
	}
	return out, nil
}

func (l *testLog) add(t testing.TB, text []byte) {
	t.Helper()
	h, err := tlog.StoredHashes(int64(len(l.entries)), text, l)
	if err != nil {
		t.Fatal(err)
	}
	l.entries, l.hashes = append(l.entries, text), append(l.hashes, h...)
}

func (l *testLog) checkpoint(t testing.TB, fleet string, by byte, witnesses ...byte) []byte {
	t.Helper()
	root, err := tlog.TreeHash(int64(len(l.entries)), l)
	if err != nil {
		t.Fatal(err)
	}
	text := inclusion.Checkpoint{Origin: Origin(fleet), Size: uint64(len(l.entries)), Root: root}.Text()
	s, err := NewSigner(fleet, sshKey(t, by))
	if err != nil {
		t.Fatal(err)
	}
	signed, err := note.Sign(&note.Note{Text: text}, s)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range witnesses {
		name := fmt.Sprintf("w%d", w)
		if w == 33 { // w31 has a second key
			name = "w31"
		}
		cosigned, err := witness.Cosign(sshKey(t, w), name, text, now)
		if err != nil {
			t.Fatal(err)
		}
		signed = append(signed, cosigned...)
	}
	return signed
}

func (l *testLog) prove(t testing.TB, index int, checkpoint []byte) []byte {
	t.Helper()
	p, err := tlog.ProveRecord(int64(len(l.entries)), int64(index), l)
	if err != nil {
		t.Fatal(err)
	}
	return inclusion.Proof{Index: uint64(index), Entry: l.entries[index], Hashes: p, Checkpoint: checkpoint}.Marshal()
}

func policy(t testing.TB) *trust.Trust {
	return &trust.Trust{Kind: trust.Kind, Fleet: "demo", Test: true, Version: 1, LedgerKeys: []string{line(t, 20)}, WitnessThreshold: 2, Witnesses: []trust.Person{
		{Name: "w31", Keys: []string{line(t, 31), line(t, 33)}}, {Name: "w32", Keys: []string{line(t, 32)}}}}
}

func reason(err error) string {
	if err == nil {
		return ""
	}
	if r := ReasonOf(err); r != "" {
		return r
	}
	return err.Error()
}

// TestLife has one row for each thing that a server may show of its life.
func TestLife(t *testing.T) {
	keys, err := KeysOf(policy(t))
	if err != nil {
		t.Fatal(err)
	}
	var l testLog
	l.add(t, entry(t, EventTrust, Trust{Kind, 1, strings.Repeat("ab", 32)}))
	l.add(t, entry(t, EventBegin, begin(nil)))
	l.add(t, entry(t, EventBegin, begin(func(b *Begin) { b.Evidence = Claimed })))
	l.add(t, entry(t, EventBegin, begin(func(b *Begin) { b.Evidence = Unverified })))
	l.add(t, entry(t, EventBegin, begin(func(b *Begin) { b.Server = "se-2" })))
	l.add(t, entry(t, EventBegin, begin(func(b *Begin) { b.TLSKey = strings.Repeat("ef", 32) })))
	l.add(t, entry(t, EventBegin, begin(func(b *Begin) { b.Deadline = now })))
	good := l.checkpoint(t, "demo", 20, 31, 32)
	public := key(7).Public().(ed25519.PublicKey)
	altered := l.prove(t, 1, good)
	altered[len(altered)/3] ^= 1
	var other testLog
	other.add(t, l.entries[0])
	other.add(t, entry(t, EventBegin, begin(func(b *Begin) { b.Epoch = 4 })))
	tests := []struct {
		name, require string
		proof         []byte
		want          string
	}{
		{"attested", RequireAttested, l.prove(t, 1, good), ""},
		{"attested, cosigned by a witness's second key", RequireAttested, l.prove(t, 1, l.checkpoint(t, "demo", 20, 33, 32)), ""},
		{"claimed, and logged is enough", RequireLogged, l.prove(t, 2, good), ""},
		{"nothing asked", RequireNothing, nil, ""},
		{"nothing shown", RequireLogged, nil, NotLogged},
		{"claimed", RequireAttested, l.prove(t, 2, good), NotAttested},
		{"unverified", RequireAttested, l.prove(t, 3, good), NotAttested},
		{"a word that is none", "whatever", l.prove(t, 2, good), NotAttested},
		{"another server's life", RequireLogged, l.prove(t, 4, good), NotLogged},
		{"another key's life", RequireLogged, l.prove(t, 5, good), NotLogged},
		{"over", RequireLogged, l.prove(t, 6, good), LifeOver},
		{"no life", RequireLogged, l.prove(t, 0, good), NotLogged},
		{"one witness short", RequireLogged, l.prove(t, 1, l.checkpoint(t, "demo", 20, 31)), NotLogged},
		{"one witness's two keys", RequireLogged, l.prove(t, 1, l.checkpoint(t, "demo", 20, 31, 33)), NotLogged},
		{"a witness of nobody", RequireLogged, l.prove(t, 1, l.checkpoint(t, "demo", 20, 31, 34)), NotLogged},
		{"another ledger's key", RequireLogged, l.prove(t, 1, l.checkpoint(t, "demo", 21, 31, 32)), NotLogged},
		{"another fleet's ledger", RequireLogged, l.prove(t, 1, l.checkpoint(t, "else", 20, 31, 32)), NotLogged},
		{"altered", RequireLogged, altered, NotLogged},
		{"in another log", RequireLogged, l.prove(t, 1, other.checkpoint(t, "demo", 20, 31, 32)), NotLogged},
		{"rubbish", RequireLogged, []byte("rubbish"), NotLogged},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b, err := keys.Life(tt.require, "se-1", public, tt.proof, now)
			if got := reason(err); got != tt.want {
				t.Fatalf("got %q, want %q (%v)", got, tt.want, err)
			}
			if tt.want == "" && tt.require != RequireNothing && b.Epoch != 3 {
				t.Errorf("got %+v", b)
			}
		})
	}
	if _, err := keys.Life(RequireLogged, "se-1", nil, l.prove(t, 1, good), now); reason(err) != NotLogged {
		t.Errorf("without a key: got %v", err)
	}
	if _, err := (Keys{}).Life(RequireLogged, "se-1", public, l.prove(t, 1, good), now); reason(err) != NotLogged {
		t.Errorf("by no keys: got %v", err)
	}
	h, err := keys.Signed(l.checkpoint(t, "demo", 20, 32))
	if err != nil || len(h.Cosigned) != 1 || h.Cosigned[0].Witness != "w32" || !h.Cosigned[0].Time.Equal(now) {
		t.Errorf("got %+v, %v", h.Cosigned, err)
	}
	if _, err := keys.Checkpoint(l.checkpoint(t, "demo", 20, 32)); reason(err) != Split {
		t.Errorf("got %v, want %s", err, Split)
	}
}

func TestKeys(t *testing.T) {
	for name, change := range map[string]func(*trust.Trust){
		"no witness asked":       func(p *trust.Trust) { p.Test, p.WitnessThreshold = false, 0 },
		"fewer than none":        func(p *trust.Trust) { p.WitnessThreshold = -1 },
		"a ledger key of no use": func(p *trust.Trust) { p.LedgerKeys = []string{"hello"} },
		"a witness's of no use":  func(p *trust.Trust) { p.Witnesses[0].Keys = []string{"hello"} },
	} {
		p := policy(t)
		change(p)
		if _, err := KeysOf(p); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
	if _, err := KeysOf(nil); err == nil {
		t.Error("no trust policy: got no error")
	}
}

func FuzzParse(f *testing.F) {
	for event, record := range goodRecords() {
		f.Add(entry(f, event, record))
	}
	f.Add([]byte(`{"time":"2026-11-20T12:00:00Z","event":"begin","record":{}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		e, err := Parse(text)
		if err != nil {
			return
		}
		var record any
		switch {
		case e.Release != nil:
			record = e.Release
		case e.Trust != nil:
			record = e.Trust
		case e.Begin != nil:
			record = e.Begin
		case e.End != nil:
			record = e.End
		default:
			return
		}
		body, err := json.Marshal(record)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := json.Marshal(inclusion.Entry{Time: e.Time, Event: e.Event, Record: body}); err != nil || !bytes.Equal(again, text) {
			t.Errorf("Parse accepted %q, which is written %q, %v", text, again, err)
		}
	})
}

func FuzzOpen(f *testing.F) {
	keys, err := KeysOf(policy(f))
	if err != nil {
		f.Fatal(err)
	}
	var l testLog
	l.add(f, entry(f, EventBegin, begin(nil)))
	l.add(f, entry(f, EventEnd, End{Kind, "se-1", 3, now, Rotated}))
	good := l.checkpoint(f, "demo", 20, 31, 32)
	f.Add(l.prove(f, 0, good))
	f.Add(l.prove(f, 1, good))
	f.Add(l.prove(f, 1, l.checkpoint(f, "demo", 20, 31)))
	f.Fuzz(func(t *testing.T, proof []byte) {
		p, err := keys.Open(proof)
		if err == nil && !bytes.Contains(proof, good[:40]) {
			t.Errorf("believed %+v under another checkpoint", p)
		}
	})
}

package ledger

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/inclusion"
	"mayfly/internal/sshsig"
	"mayfly/policies/ledger"
	"mayfly/policies/trust"
	"mayfly/rebuild/release"
)

var start = time.Date(2026, time.November, 20, 12, 0, 0, 0, time.UTC)

func signer(t testing.TB, seed byte) ssh.Signer {
	t.Helper()
	s, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func policy(t testing.TB, version uint64, change func(*trust.Trust)) *trust.Trust {
	t.Helper()
	key := func(seed byte) []string { return []string{trust.FormatKey(signer(t, seed).PublicKey())} }
	p := &trust.Trust{Kind: trust.Kind, Fleet: "demo", Test: true, Version: version, Threshold: 2, BuilderThreshold: 1,
		Approvers:  []trust.Person{{Name: "ana", Keys: key(1)}, {Name: "ben", Keys: key(2)}},
		Builders:   []trust.Person{{Name: "ci", Keys: key(3)}},
		TicketKeys: key(4), ListKeys: key(5), LedgerKeys: key(6)}
	if change != nil {
		change(p)
	}
	return p
}

// book writes entries as the signer does.
type book struct {
	t       testing.TB
	at      time.Time
	entries [][]byte
}

func (b *book) add(event string, record any) {
	b.t.Helper()
	body, err := json.Marshal(record)
	if err != nil {
		b.t.Fatal(err)
	}
	text, err := json.Marshal(inclusion.Entry{Time: b.at, Event: event, Record: body})
	if err != nil {
		b.t.Fatal(err)
	}
	b.entries = append(b.entries, text)
}

func (b *book) trust(p *trust.Trust) {
	b.add(ledger.EventTrust, ledger.Trust{Kind: ledger.Kind, Version: p.Version, SHA256: p.Sum()})
}

func statement(version uint64) release.Statement {
	part := release.Part{Size: 3, SHA256: strings.Repeat("ab", 32)}
	return release.Statement{Kind: release.Kind, Fleet: "demo", Version: version, Least: 1, Profile: release.ProfileCloud,
		NotBefore: start.Add(-time.Hour), NotAfter: start.Add(30 * 24 * time.Hour), MaxAge: 86400,
		Kernel: part, Stub: part, Root: part, Lock: strings.Repeat("cd", 32), MinPolicy: 1}
}

// release signs a release with the approvers and the builder of these seeds, and logs it. It returns its hash.
func (b *book) release(s release.Statement, approvers, builders []byte) string {
	b.t.Helper()
	data, err := s.Marshal()
	if err != nil {
		b.t.Fatal(err)
	}
	var sigs []byte
	for namespace, seeds := range map[string][]byte{release.Namespace: approvers, release.BuildNamespace: builders} {
		for _, seed := range seeds {
			sig, err := sshsig.Sign(signer(b.t, seed), namespace, data)
			if err != nil {
				b.t.Fatal(err)
			}
			sigs = append(sigs, sig...)
		}
	}
	b.add(ledger.EventRelease, ledger.Release{Kind: ledger.Kind, Statement: string(data), Signatures: string(sigs) + "\n"})
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func (b *book) good(version uint64) string {
	return b.release(statement(version), []byte{1, 2}, []byte{3})
}

func (b *book) life(server string, epoch, version uint64, hash string, change func(*ledger.Begin)) {
	r := ledger.Begin{Kind: ledger.Kind, Server: server, Epoch: epoch, Release: version, ReleaseSHA256: hash, Began: b.at.Add(-time.Minute),
		Deadline: b.at.Add(-time.Minute).Add(24 * time.Hour), Evidence: ledger.Claimed, TLSKey: strings.Repeat("01", 32), HostKey: strings.Repeat("02", 32)}
	if change != nil {
		change(&r)
	}
	b.add(ledger.EventBegin, r)
}

func (b *book) end(server string, epoch uint64, reason string) {
	b.add(ledger.EventEnd, ledger.End{Kind: ledger.Kind, Server: server, Epoch: epoch, Ended: b.at, Reason: reason})
}

func (b *book) check(r Rules) Report {
	c := New(r)
	for i, text := range b.entries {
		c.Add(uint64(i), text)
	}
	return c.Report(b.at)
}

func reasons(r Report) string {
	var all []string
	for _, v := range r.Violations {
		all = append(all, v.Reason)
	}
	return strings.Join(all, " ")
}

// TestCheck has one row for each thing that can be wrong, and for what is not.
func TestCheck(t *testing.T) {
	p1 := policy(t, 1, nil)
	p2 := policy(t, 2, func(p *trust.Trust) {
		p.Previous, p.MinRelease = p1.Sum(), 7
		p.Approvers[1].Keys = []string{trust.FormatKey(signer(t, 12).PublicKey())} // ben has a new key
	})
	chain := Policies{p1.Sum(): p1, p2.Sum(): p2}
	hour := func(b *book) { b.at = b.at.Add(time.Hour) }
	tests := []struct {
		name  string
		rules Rules
		do    func(*book)
		want  string
	}{
		{"a rotation", Rules{}, func(b *book) {
			h := b.good(7)
			b.life("a", 1, 7, h, nil)
			hour(b)
			b.end("a", 1, ledger.Rotated)
			b.life("a", 2, 7, h, nil)
		}, ""},
		{"the log's own note of a crash", Rules{}, func(b *book) { b.add(ledger.EventTorn, struct{}{}); b.good(7) }, ""},
		{"a release before its time", Rules{}, func(b *book) {
			s := statement(7)
			s.NotBefore = start.Add(time.Hour)
			b.release(s, []byte{1, 2}, []byte{3})
		}, ""},
		{"the same life again, once it was over", Rules{}, func(b *book) {
			h := b.good(7)
			b.life("a", 1, 7, h, nil)
			b.end("a", 1, ledger.Superseded)
			b.life("a", 1, 7, h, nil)
		}, ""},
		{"a new key after a change of trust", Rules{}, func(b *book) {
			b.good(7)
			b.trust(p2)
			b.release(statement(8), []byte{1, 12}, []byte{3})
		}, ""},
		{"a deadline that passed unsaid", Rules{}, func(b *book) {
			h := b.good(7)
			b.life("a", 1, 7, h, nil)
			b.at = b.at.Add(24 * time.Hour)
			b.life("a", 2, 7, h, nil)
		}, ""},

		{"rubbish", Rules{}, func(b *book) { b.entries = append(b.entries, []byte(`{"rubbish":1}`)) }, EntryMalformed},
		{"another event", Rules{}, func(b *book) { b.add("login", struct{}{}) }, EntryMalformed},
		{"time goes back", Rules{}, func(b *book) { b.good(7); b.at = b.at.Add(-2 * time.Minute); b.good(8) }, TimeBack},
		{"one approver", Rules{}, func(b *book) { b.release(statement(7), []byte{1}, []byte{3}) }, release.Unsigned},
		{"a stranger", Rules{}, func(b *book) { b.release(statement(7), []byte{1, 9}, []byte{3}) }, release.Unsigned},
		{"no builder", Rules{}, func(b *book) { b.release(statement(7), []byte{1, 2}, nil) }, release.Unbuilt},
		{"another fleet's", Rules{}, func(b *book) {
			s := statement(7)
			s.Fleet = "else"
			b.release(s, []byte{1, 2}, []byte{3})
		}, release.OtherFleet},
		{"over", Rules{}, func(b *book) { b.at = start.Add(31 * 24 * time.Hour); b.good(7) }, release.Expired},
		{"an old key after a change of trust", Rules{}, func(b *book) { b.trust(p2); b.good(7) }, release.Unsigned},
		{"two of one version", Rules{}, func(b *book) {
			b.good(7)
			s := statement(7)
			s.Name = "another"
			b.release(s, []byte{1, 2}, []byte{3})
		}, ReleaseForked},
		{"a trust policy of nobody", Rules{}, func(b *book) { b.trust(policy(t, 2, nil)) }, TrustUnknown},
		{"an older trust policy", Rules{}, func(b *book) { b.trust(p2); b.trust(p1) }, TrustBack},

		{"a life of nothing", Rules{}, func(b *book) { b.life("a", 1, 7, strings.Repeat("ef", 32), nil) }, ReleaseUnlogged},
		{"a life before its release", Rules{}, func(b *book) {
			other := book{t: t, at: b.at}
			b.life("a", 1, 7, other.good(7), nil)
			b.good(7)
		}, ReleaseUnlogged},
		{"a life under another version", Rules{}, func(b *book) { b.life("a", 1, 8, b.good(7), nil) }, ReleaseUnlogged},
		{"a life under a release that is too old", Rules{}, func(b *book) {
			h := b.good(7)
			s := statement(8)
			s.Least = 8
			b.release(s, []byte{1, 2}, []byte{3})
			b.life("a", 1, 7, h, nil)
		}, ReleaseFrozen},
		{"a life under a release older than trust says", Rules{}, func(b *book) { h := b.good(6); b.trust(p2); b.life("a", 1, 6, h, nil) }, release.Older},
		{"a life after its release", Rules{}, func(b *book) { h := b.good(7); b.at = start.Add(31 * 24 * time.Hour); b.life("a", 1, 7, h, nil) }, release.Expired},
		{"a life before its release's time", Rules{}, func(b *book) {
			s := statement(7)
			s.NotBefore = start.Add(time.Hour)
			b.life("a", 1, 7, b.release(s, []byte{1, 2}, []byte{3}), nil)
		}, release.NotYet},
		{"a life longer than its release allows", Rules{}, func(b *book) {
			b.life("a", 1, 7, b.good(7), func(l *ledger.Begin) { l.Deadline = l.Deadline.Add(time.Second) })
		}, LifeTooLong},
		{"a life longer than asked", Rules{MaxAge: time.Hour}, func(b *book) { b.life("a", 1, 7, b.good(7), nil) }, LifeTooLong},
		{"a life logged late", Rules{}, func(b *book) {
			b.life("a", 1, 7, b.good(7), func(l *ledger.Begin) { l.Began = b.at.Add(-3 * time.Hour); l.Deadline = b.at.Add(time.Hour) })
		}, LifeTime},
		{"a life that begins later", Rules{}, func(b *book) {
			b.life("a", 1, 7, b.good(7), func(l *ledger.Begin) { l.Began = b.at.Add(2 * time.Minute) })
		}, LifeTime},
		{"a life that is over when it is logged", Rules{}, func(b *book) {
			b.life("a", 1, 7, b.good(7), func(l *ledger.Begin) { l.Deadline = b.at })
		}, LifeTime},
		{"a claimed life where it has to be attested", Rules{Attested: true}, func(b *book) { b.life("a", 1, 7, b.good(7), nil) }, LifeEvidence},
		{"two lives at once", Rules{}, func(b *book) { h := b.good(7); b.life("a", 1, 7, h, nil); hour(b); b.life("a", 2, 7, h, nil) }, LivesOverlap},
		{"an epoch again", Rules{}, func(b *book) { h := b.good(7); b.life("a", 2, 7, h, nil); b.life("a", 2, 7, h, nil) }, EpochNotRising},
		{"an older epoch", Rules{}, func(b *book) {
			h := b.good(7)
			b.life("a", 2, 7, h, nil)
			b.end("a", 2, ledger.Failed)
			b.life("a", 1, 7, h, nil)
		}, EpochNotRising},
		{"the end of nothing", Rules{}, func(b *book) { b.end("a", 1, ledger.Rotated) }, EndUnknown},
		{"a second end", Rules{}, func(b *book) {
			b.life("a", 1, 7, b.good(7), nil)
			b.end("a", 1, ledger.Rotated)
			b.end("a", 1, ledger.Rotated)
		}, EndUnknown},
		{"an end after the deadline", Rules{}, func(b *book) {
			b.life("a", 1, 7, b.good(7), nil)
			b.at = b.at.Add(25 * time.Hour)
			b.end("a", 1, ledger.Rotated)
		}, LifeTooLong},
		{"an end before the begin", Rules{}, func(b *book) {
			b.life("a", 1, 7, b.good(7), nil)
			b.add(ledger.EventEnd, ledger.End{Kind: ledger.Kind, Server: "a", Epoch: 1, Ended: b.at.Add(-time.Hour), Reason: ledger.Failed})
		}, LifeTime},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := &book{t: t, at: start}
			b.trust(p1)
			tt.do(b)
			tt.rules.Policies = chain
			r := b.check(tt.rules)
			if got := reasons(r); got != tt.want {
				t.Errorf("got %q, want %q: %+v", got, tt.want, r.Violations)
			}
			if want := uint64(len(b.entries)); r.Entries != want {
				t.Errorf("%d entries, want %d", r.Entries, want)
			}
		})
	}
	b := &book{t: t, at: start}
	b.good(7)
	if got := reasons(b.check(Rules{Policies: chain})); got != release.Unsigned {
		t.Errorf("before any trust policy: got %q", got)
	}
}

// TestReport tells lives that run from those that are over.
func TestReport(t *testing.T) {
	p := policy(t, 1, nil)
	b := &book{t: t, at: start}
	b.trust(p)
	h := b.good(7)
	b.life("b", 1, 7, h, func(l *ledger.Begin) { l.Evidence = ledger.Attested })
	b.life("a", 4, 7, h, func(l *ledger.Begin) { l.Deadline = b.at.Add(time.Minute); l.Evidence = ledger.Unverified })
	b.life("c", 9, 7, h, nil)
	b.at = b.at.Add(time.Hour)
	b.end("c", 9, ledger.Rotated)
	r := b.check(Rules{Policies: Policies{p.Sum(): p}})
	if r.Wrong != 0 || r.Lives != 3 || r.Ends != 1 || r.Attested != 1 || r.Claimed != 1 || r.Unverified != 1 || r.Longest != 86400 || len(r.Releases) != 1 {
		t.Errorf("got %+v", r)
	}
	if len(r.Running) != 1 || r.Running[0].Server != "b" || r.Running[0].Age != 3660 || r.Running[0].Release != 7 {
		t.Errorf("running: %+v", r.Running)
	}
}

// TestChain goes both ways from the trust policy that is believed, and takes nothing else.
func TestChain(t *testing.T) {
	p1 := policy(t, 1, nil)
	p2 := policy(t, 2, func(p *trust.Trust) { p.Previous = p1.Sum() })
	p3 := policy(t, 3, func(p *trust.Trust) { p.Previous = p2.Sum() })
	file := func(p *trust.Trust) []byte {
		data, err := p.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	var sigs []byte
	for _, seed := range []byte{1, 2} {
		sig, err := sshsig.Sign(signer(t, seed), trust.Namespace, file(p3))
		if err != nil {
			t.Fatal(err)
		}
		sigs = append(sigs, sig...)
	}
	files := map[uint64][2][]byte{1: {file(p1)}, 3: {file(p3), sigs}}
	read := func(version uint64) ([]byte, []byte, error) { return files[version][0], files[version][1], nil }
	all, newest, err := Chain(p2, read)
	if err != nil || len(all) != 3 || newest.Version != 3 || all[p1.Sum()] == nil {
		t.Fatalf("got %d policies, %v", len(all), err)
	}
	other := policy(t, 1, func(p *trust.Trust) { p.MinRelease = 1 })
	for name, change := range map[string]func(){
		"another before it":    func() { files[1] = [2][]byte{file(other)} },
		"an unsigned after it": func() { files[1], files[3] = [2][]byte{file(p1)}, [2][]byte{file(p3), nil} },
	} {
		change()
		if _, _, err := Chain(p2, read); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
	delete(files, 1)
	delete(files, 3)
	if all, newest, err := Chain(p2, read); err != nil || len(all) != 1 || newest != p2 {
		t.Errorf("alone: got %v, %v", all, err)
	}
}

// BenchmarkCheck is 100,000 entries: five days of 10,000 servers.
func BenchmarkCheck(b *testing.B) {
	p := policy(b, 1, nil)
	w := &book{t: b, at: start}
	w.trust(p)
	h := w.good(7)
	const servers = 10_000
	for i := 0; len(w.entries) < 100_000; i++ {
		name, epoch := fmt.Sprintf("se-%d", i%servers), uint64(i/servers+1)
		if epoch > 1 {
			w.end(name, epoch-1, ledger.Rotated)
		}
		w.life(name, epoch, 7, h, nil)
		w.at = w.at.Add(time.Second).Truncate(time.Second)
	}
	size := 0
	for _, e := range w.entries {
		size += len(e)
	}
	b.ReportMetric(float64(size)/float64(len(w.entries)), "bytes/entry")
	for b.Loop() {
		if r := w.check(Rules{Policies: Policies{p.Sum(): p}}); r.Wrong != 0 {
			b.Fatal(slices.Clip(r.Violations)[0])
		}
	}
}

package witness

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"mayfly/internal/canonical"
	"mayfly/internal/sshsig"
	"mayfly/inventory"
	"mayfly/policies"
	"mayfly/policies/bundle"
	"mayfly/policies/trust"
	"mayfly/policies/witness"
)

const origin = "lab.example/bastion-1/audit"

// lab is a witness with a fleet's approvers and one log.
type lab struct {
	t         testing.TB
	trust     *trust.Trust
	approvers []ssh.Signer
	builder   ssh.Signer
	ledger    ssh.Signer
	key       ssh.Signer
	logKey    note.Signer
	fleet     inventory.Fleet
	policy    policies.Policy
	options   Options
	*Witness
}

func newSigner(t testing.TB) ssh.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	check(t, err)
	s, err := ssh.NewSignerFromKey(key)
	check(t, err)
	return s
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newLab(t testing.TB) *lab {
	t.Helper()
	l := &lab{t: t, approvers: []ssh.Signer{newSigner(t), newSigner(t)}, builder: newSigner(t), ledger: newSigner(t), key: newSigner(t)}
	line := func(s ssh.Signer) string { return trust.FormatKey(s.PublicKey()) }
	l.trust = &trust.Trust{Kind: trust.Kind, Fleet: "lab", Test: true, Version: 1, Threshold: 2,
		Approvers: []trust.Person{{Name: "ana", Keys: []string{line(l.approvers[0])}}, {Name: "bo", Keys: []string{line(l.approvers[1])}}},
		Builders:  []trust.Person{{Name: "dan", Keys: []string{line(l.builder)}}}, BuilderThreshold: 1, LedgerKeys: []string{line(l.ledger)},
		TicketKeys: []string{line(newSigner(t))}, ListKeys: []string{line(newSigner(t))},
		Witnesses: []trust.Person{{Name: "ida", Keys: []string{line(l.key)}}}, WitnessThreshold: 1}
	check(t, l.trust.Check())
	fleet, err := os.ReadFile("../../inventory/testdata/fleet.toml")
	check(t, err)
	l.fleet, err = inventory.Parse("fleet.toml", fleet)
	check(t, err)
	policy, err := os.ReadFile("../../policies/testdata/policy.toml")
	check(t, err)
	l.policy, err = policies.Parse("policy.toml", policy, l.fleet)
	check(t, err)
	l.trust.Fleet, l.trust.Test = l.fleet.Name, l.fleet.Test
	private, public, err := note.GenerateKey(rand.Reader, origin)
	check(t, err)
	l.logKey, err = note.NewSigner(private)
	check(t, err)
	verifier, err := note.NewVerifier(public)
	check(t, err)
	l.options = Options{Trust: l.trust, Key: l.key, State: filepath.Join(t.TempDir(), "state"), Logs: []note.Verifier{verifier}, Log: slog.New(slog.DiscardHandler)}
	l.open()
	t.Cleanup(func() { check(t, l.Close()) })
	return l
}

func (l *lab) open() {
	l.t.Helper()
	w, err := Open(l.options)
	check(l.t, err)
	l.Witness = w
}

// publication is a policy of this version, signed by so many; salt makes another file of it.
func (l *lab) publication(version uint64, signers int, salt int) witness.Publication {
	l.t.Helper()
	l.policy.Version, l.policy.Expires = version, time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	data, err := bundle.Make(l.fleet, l.policy, time.Now().Add(time.Duration(salt)*time.Second))
	check(l.t, err)
	var signatures []byte
	for _, s := range l.approvers[:signers] {
		block, err := sshsig.Sign(s, bundle.Namespace, data)
		check(l.t, err)
		signatures = append(signatures, block...)
	}
	return witness.Publication{Kind: witness.KindPublication, Subject: witness.SubjectPolicy, File: string(data), Signatures: string(signatures)}
}

// TestWitness publishes one policy after the other over HTTP, asks, and starts the witness again in between.
func TestWitness(t *testing.T) {
	l := newLab(t)
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { l.Handler().ServeHTTP(rw, r) }))
	defer server.Close()
	post := func(path string, body []byte) (int, string) {
		t.Helper()
		resp, err := http.Post(server.URL+path, "application/json", bytes.NewReader(body))
		check(t, err)
		defer resp.Body.Close()
		data, err := io.ReadAll(resp.Body)
		check(t, err)
		return resp.StatusCode, string(data)
	}
	encode := func(v any) []byte {
		t.Helper()
		data, err := canonical.Marshal(v)
		check(t, err)
		return data
	}
	ask := func(version uint64, sum string) witness.Verdict {
		t.Helper()
		q := witness.Ask(l.trust.Fleet, witness.SubjectPolicy)
		status, body := post(witness.PathAnswer, encode(q))
		if status != http.StatusOK {
			t.Fatalf("asking: %d %s", status, body)
		}
		return witness.Judge(l.trust, q, version, sum, [][]byte{[]byte(body)}, time.Now())
	}
	one, two, three, fork := l.publication(1, 2, 0), l.publication(2, 2, 0), l.publication(3, 2, 0), l.publication(3, 2, 1)
	altered := two
	altered.File = strings.Replace(two.File, `"version": 2`, `"version": 9`, 1)
	stranger := witness.Ask("elsewhere", witness.SubjectPolicy)
	for _, tt := range []struct {
		name, path string
		body       []byte
		status     int
		code       string
	}{
		{"asked before anything is known", witness.PathAnswer, encode(witness.Ask(l.trust.Fleet, witness.SubjectPolicy)), 404, "nothing_known"},
		{"asked for another fleet", witness.PathAnswer, encode(stranger), 404, "other_fleet"},
		{"asked nonsense", witness.PathAnswer, []byte("{}"), 400, "question_malformed"},
		{"asked too much", witness.PathAnswer, bytes.Repeat([]byte("a"), witness.MaxQuestion+1), 413, "too_large"},
		{"nonsense", witness.PathPublish, []byte("{}"), 400, "publication_malformed"},
		{"too much", witness.PathPublish, bytes.Repeat([]byte("a"), witness.MaxPublication+1), 413, "too_large"},
		{"one signature", witness.PathPublish, encode(l.publication(2, 1, 0)), 403, bundle.Unsigned},
		{"altered", witness.PathPublish, encode(altered), 403, bundle.Unsigned},
		{"version 2", witness.PathPublish, encode(two), 200, ""},
		{"again", witness.PathPublish, encode(two), 200, ""},
		{"version 1", witness.PathPublish, encode(one), 409, bundle.Older},
		{"version 3", witness.PathPublish, encode(three), 200, ""},
		{"version 2 again", witness.PathPublish, encode(two), 409, bundle.Older},
		{"another version 3", witness.PathPublish, encode(fork), 409, witness.Forked},
	} {
		status, body := post(tt.path, tt.body)
		var refusal struct{ Code string }
		if err := json.Unmarshal([]byte(body), &refusal); status != tt.status || refusal.Code != tt.code {
			t.Errorf("%s: got %d %s (%v), want %d %s", tt.name, status, body, err, tt.status, tt.code)
		}
		if tt.status == 200 { // what it said is on disk: another life of it says the same
			check(t, l.Close())
			l.open()
		}
	}
	if v := ask(3, witness.Sum([]byte(three.File))); !v.Fresh {
		t.Errorf("the newest: %+v", v)
	}
	if v := ask(2, witness.Sum([]byte(two.File))); v.Reason != witness.Frozen {
		t.Errorf("an older one: %+v", v)
	}
	if v := ask(3, witness.Sum([]byte(fork.File))); v.Reason != witness.Forked {
		t.Errorf("the fork: %+v", v)
	}
	if forks, err := filepath.Glob(filepath.Join(l.options.State, "fork-3-*.json")); err != nil || len(forks) != 1 {
		t.Errorf("evidence: %v, %v", forks, err)
	}
	if _, err := Open(l.options); err == nil || !strings.Contains(err.Error(), "another witness has it") {
		t.Errorf("two at once: %v", err)
	}
	resp, err := http.Get(server.URL + witness.PathAnswer)
	check(t, err)
	resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET: %s", resp.Status)
	}
}

// history is a log that grows.
type history struct{ hashes []tlog.Hash }

func (h *history) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	list := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		list[i] = h.hashes[x]
	}
	return list, nil
}

func (h *history) add(t testing.TB, from, to int64, what string) {
	t.Helper()
	for n := from; n < to; n++ {
		hashes, err := tlog.StoredHashes(n, fmt.Appendf(nil, "%s %d", what, n), h)
		check(t, err)
		h.hashes = append(h.hashes, hashes...)
	}
}

// request is an add-checkpoint request for a size, proven from an old one.
func (l *lab) request(h *history, old, size int64, key note.Signer) []byte {
	l.t.Helper()
	return l.requestOf(h, origin, old, size, key)
}

// requestOf is request for a log of another name.
func (l *lab) requestOf(h *history, origin string, old, size int64, key note.Signer) []byte {
	l.t.Helper()
	root, err := tlog.TreeHash(size, h)
	check(l.t, err)
	if size == 0 {
		root = sha256.Sum256(nil)
	}
	text := fmt.Sprintf("%s\n%d\n%s\n", origin, size, base64.StdEncoding.EncodeToString(root[:]))
	signed, err := note.Sign(&note.Note{Text: text}, key)
	check(l.t, err)
	out := fmt.Sprintf("old %d\n", old)
	if old > 0 && old < size {
		proof, err := tlog.ProveTree(size, old, h)
		check(l.t, err)
		for _, hash := range proof {
			out += base64.StdEncoding.EncodeToString(hash[:]) + "\n"
		}
	}
	return []byte(out + "\n" + string(signed))
}

// TestAddCheckpoint takes a log through its life, and through everything that a log must not do.
func TestAddCheckpoint(t *testing.T) {
	l := newLab(t)
	good, other := new(history), new(history)
	good.add(t, 0, 20, "good")
	other.add(t, 0, 20, "other")
	stranger, _, err := note.GenerateKey(rand.Reader, origin)
	check(t, err)
	strangersKey, err := note.NewSigner(stranger)
	check(t, err)
	cut := func(data []byte, old, new string) []byte { return bytes.Replace(data, []byte(old), []byte(new), 1) }
	cosigner, err := witness.NewCosigner("ida", trust.FormatKey(l.key.PublicKey()))
	check(t, err)
	server := httptest.NewServer(l.Handler())
	defer server.Close()
	for _, tt := range []struct {
		name   string
		body   []byte
		status int
		want   string
	}{
		{"empty", l.request(good, 0, 0, l.logKey), 200, ""},
		{"first", l.request(good, 0, 5, l.logKey), 200, ""},
		{"the same", l.request(good, 5, 5, l.logKey), 200, ""},
		{"from a size that is not the newest", l.request(good, 0, 8, l.logKey), 409, "5\n"},
		{"grown", l.request(good, 5, 13, l.logKey), 200, ""},
		{"shrunk", l.request(good, 5, 8, l.logKey), 409, "13\n"},
		{"old is larger than the checkpoint", cut(l.request(good, 5, 8, l.logKey), "old 5", "old 13"), 400, "checkpoint_malformed"},
		{"another history", l.request(other, 13, 20, l.logKey), 422, "checkpoint_inconsistent"},
		{"another history of the same size", l.request(other, 13, 13, l.logKey), 409, "13\n"},
		{"without a proof", cut(l.request(good, 0, 20, l.logKey), "old 0", "old 13"), 422, "checkpoint_inconsistent"},
		{"a stranger's", l.request(good, 13, 20, strangersKey), 403, "checkpoint_unsigned"},
		{"altered", cut(l.request(good, 13, 20, l.logKey), "\n20\n", "\n19\n"), 403, "checkpoint_unsigned"},
		{"another log", bytes.ReplaceAll(l.request(good, 13, 20, l.logKey), []byte(origin), []byte("elsewhere")), 404, "log_unknown"},
		{"nonsense", []byte("hello"), 400, "checkpoint_malformed"},
		{"a size with a sign", cut(l.request(good, 13, 20, l.logKey), "old 13", "old +13"), 400, "checkpoint_malformed"},
		{"a proof without end", []byte("old 13\n" + strings.Repeat(base64.StdEncoding.EncodeToString(make([]byte, 32))+"\n", 64) + "\nx"), 400, "checkpoint_malformed"},
		{"too large", bytes.Repeat([]byte("a"), maxCheckpoint+1), 413, "too_large"},
		{"grown again", l.request(good, 13, 20, l.logKey), 200, ""},
	} {
		resp, err := http.Post(server.URL+witness.PathAddCheckpoint, "text/plain", bytes.NewReader(tt.body))
		check(t, err)
		data, err := io.ReadAll(resp.Body)
		check(t, err)
		resp.Body.Close()
		if resp.StatusCode != tt.status || !strings.Contains(string(data), tt.want) {
			t.Errorf("%s: got %s %q, want %d %q", tt.name, resp.Status, data, tt.status, tt.want)
			continue
		}
		if tt.status == http.StatusConflict && resp.Header.Get("Content-Type") != "text/x.tlog.size" {
			t.Errorf("%s: content type %q", tt.name, resp.Header.Get("Content-Type"))
		}
		if tt.status != http.StatusOK {
			continue
		}
		_, signed, _ := bytes.Cut(tt.body, []byte("\n\n"))
		opened, err := note.Open(append(bytes.Clone(signed), data...), note.VerifierList(cosigner, l.options.Logs[0]))
		if err != nil || len(opened.Sigs) != 2 {
			t.Errorf("%s: the cosigned checkpoint: %+v, %v", tt.name, opened, err)
		}
	}
	// What it cosigned is on disk.
	check(t, l.Close())
	l.open()
	if c, err := l.memory.log(origin); err != nil || c.Size != 20 {
		t.Errorf("after a restart: %+v, %v", c, err)
	}
}

// TestRates asks more often than it may, from one source and from more than are remembered.
func TestRates(t *testing.T) {
	var r rates
	now := time.Now()
	one, sibling := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	for i := range burst {
		if !r.allow(one, now) {
			t.Fatalf("request %d refused", i+1)
		}
	}
	if r.allow(one, now) || r.allow(sibling, now) {
		t.Error("more than a burst, from one network")
	}
	if !r.allow(netip.MustParseAddr("2001:db8:1::1"), now) || !r.allow(one, now.Add(time.Second)) || r.allow(netip.Addr{}, now) {
		t.Error("another source, or a second later, or nobody")
	}
	for i := range 2 * maxSources {
		r.allow(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), now)
	}
	if len(r.sources) > maxSources {
		t.Errorf("%d sources are remembered", len(r.sources))
	}
}

// TestServe ends with its context, and leaves nobody waiting.
func TestServe(t *testing.T) {
	l := newLab(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Serve(ctx, listener, nil) }()
	resp, err := http.Get("http://" + listener.Addr().String() + "/")
	check(t, err)
	data, err := io.ReadAll(resp.Body)
	check(t, err)
	resp.Body.Close()
	if !strings.Contains(string(data), "witness ida of fleet") {
		t.Errorf("got %q", data)
	}
	http.DefaultClient.CloseIdleConnections()
	stop()
	check(t, <-done)
}

func FuzzAddCheckpoint(f *testing.F) {
	l := newLab(f)
	h := new(history)
	h.add(f, 0, 8, "x")
	f.Add(l.request(h, 0, 5, l.logKey))
	f.Add(l.request(h, 5, 8, l.logKey))
	f.Add([]byte("old 0\n\nx\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		before, err := l.memory.log(origin)
		check(t, err)
		_, err = l.AddCheckpoint(data, time.Now())
		after, readErr := l.memory.log(origin)
		check(t, readErr)
		if after.Size < before.Size || err != nil && after != before {
			t.Errorf("%q: from %+v to %+v, %v", data, before, after, err)
		}
	})
}

package witness

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/mod/sumdb/note"

	"mayfly/internal/canonical"
	"mayfly/internal/sshsig"
	"mayfly/policies/ledger"
	"mayfly/policies/trust"
	"mayfly/policies/witness"
	"mayfly/rebuild/release"
)

// released is a release of this version with so many approvers' signatures, the builder's too if built; name makes another file of it.
func (l *lab) released(version, least uint64, approvers int, built bool, name string) witness.Publication {
	l.t.Helper()
	part := release.Part{Size: 1, SHA256: strings.Repeat("ab", 32)}
	s := release.Statement{Kind: release.Kind, Fleet: l.trust.Fleet, Name: name, Version: version, Least: least, Profile: release.ProfileCloud,
		NotBefore: time.Unix(1, 0).UTC(), NotAfter: time.Unix(2, 0).UTC(), // expired: still newer than what it replaced
		MaxAge: 3600, Kernel: part, Stub: part, Root: part, Lock: part.SHA256, MinPolicy: 1}
	data, err := s.Marshal()
	check(l.t, err)
	var signatures []byte
	sign := func(key ssh.Signer, namespace string) {
		block, err := sshsig.Sign(key, namespace, data)
		check(l.t, err)
		signatures = append(signatures, block...)
	}
	for _, a := range l.approvers[:approvers] {
		sign(a, release.Namespace)
	}
	if built {
		sign(l.builder, release.BuildNamespace)
	} else {
		sign(l.builder, release.Namespace) // which says something else
	}
	return witness.Publication{Kind: witness.KindPublication, Subject: witness.SubjectRelease, File: string(data), Signatures: string(signatures)}
}

// TestReleases publishes releases and a policy beside them, starts the witness again after each, and asks.
func TestReleases(t *testing.T) {
	l := newLab(t)
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { l.Handler().ServeHTTP(rw, r) }))
	defer server.Close()
	post := func(path string, v any) (int, []byte) {
		t.Helper()
		body, err := canonical.Marshal(v)
		check(t, err)
		resp, err := http.Post(server.URL+path, "application/json", strings.NewReader(string(body)))
		check(t, err)
		defer resp.Body.Close()
		data, err := io.ReadAll(resp.Body)
		check(t, err)
		return resp.StatusCode, data
	}
	ask := func(p witness.Publication, version uint64) witness.ReleaseVerdict {
		t.Helper()
		q := witness.Ask(l.trust.Fleet, witness.SubjectRelease)
		status, body := post(witness.PathAnswer, q)
		if status != http.StatusOK {
			t.Fatalf("asking: %d %s", status, body)
		}
		return witness.JudgeRelease(l.trust, q, version, witness.Sum([]byte(p.File)), [][]byte{body})
	}
	policy := l.publication(9, 2, 0)
	six, seven, fork, eight, falls := l.released(6, 5, 2, true, ""), l.released(7, 6, 2, true, ""), l.released(7, 6, 2, true, "another"), l.released(8, 8, 2, true, ""), l.released(9, 7, 2, true, "")
	altered := seven
	altered.File = strings.Replace(seven.File, `"version": 7`, `"version": 70`, 1)
	for _, tt := range []struct {
		name, path  string
		publication witness.Publication
		status      int
		code        string
	}{
		{"asked before any is known", "", witness.Publication{}, 404, "nothing_known"},
		{"a policy, which is no release", witness.PathRelease, policy, 400, "publication_malformed"},
		{"a release, which is no policy", witness.PathPublish, six, 400, "publication_malformed"},
		{"a policy", witness.PathPublish, policy, 200, ""},
		{"a policy does not answer for releases", "", witness.Publication{}, 404, "nothing_known"},
		{"one approver", witness.PathRelease, l.released(6, 5, 1, true, ""), 403, release.Unsigned},
		{"nobody built it", witness.PathRelease, l.released(6, 5, 2, false, ""), 403, release.Unbuilt},
		{"altered", witness.PathRelease, altered, 403, release.Unsigned},
		{"6, whatever the policy's version", witness.PathRelease, six, 200, ""},
		{"7", witness.PathRelease, seven, 200, ""},
		{"again", witness.PathRelease, seven, 200, ""},
		{"6 again", witness.PathRelease, six, 409, release.Older},
		{"another 7", witness.PathRelease, fork, 409, witness.ReleaseForked},
	} {
		var status int
		var body []byte
		if tt.path == "" {
			status, body = post(witness.PathAnswer, witness.Ask(l.trust.Fleet, witness.SubjectRelease))
		} else {
			status, body = post(tt.path, tt.publication)
		}
		var refusal struct{ Code string }
		if err := json.Unmarshal(body, &refusal); status != tt.status || refusal.Code != tt.code {
			t.Errorf("%s: got %d %s (%v), want %d %s", tt.name, status, body, err, tt.status, tt.code)
		}
		check(t, l.Close())
		l.open()
	}
	if forks, err := filepath.Glob(filepath.Join(l.options.State, "release-fork-7-*.json")); err != nil || len(forks) != 1 {
		t.Errorf("evidence: %v, %v", forks, err)
	}
	if l.Newest(witness.SubjectPolicy) != 9 || l.Newest(witness.SubjectRelease) != 7 {
		t.Errorf("got policy %d and release %d, want 9 and 7", l.Newest(witness.SubjectPolicy), l.Newest(witness.SubjectRelease))
	}
	if v := ask(seven, 7); !v.Fresh || time.Since(v.Time) > witness.MaxSkew || v.Least != 6 {
		t.Errorf("the newest: %+v", v)
	}
	if v := ask(six, 6); !v.Fresh {
		t.Errorf("an older one that may still boot: %+v", v)
	}
	if v := ask(fork, 7); v.Reason != witness.ReleaseForked {
		t.Errorf("the fork: %+v", v)
	}
	if v := ask(eight, 8); v.Reason != witness.Missing {
		t.Errorf("one that was not published: %+v", v)
	}
	if status, body := post(witness.PathRelease, eight); status != http.StatusOK {
		t.Fatalf("8: %d %s", status, body)
	}
	if v := ask(seven, 7); v.Reason != witness.ReleaseFrozen || v.Least != 8 {
		t.Errorf("one that may not boot any more: %+v", v)
	}
	if status, body := post(witness.PathRelease, falls); status != http.StatusConflict || !strings.Contains(string(body), LeastFalls) {
		t.Errorf("9, under which 7 would boot again: %d %s", status, body)
	}
}

// TestFollowsTheLedger cosigns the fleet's own ledger by the keys of the trust policy, without being told of it, and no other log in its name.
func TestFollowsTheLedger(t *testing.T) {
	l := newLab(t)
	check(t, l.Close())
	_, private, err := ed25519.GenerateKey(rand.Reader)
	check(t, err)
	key, err := ssh.NewSignerFromKey(private)
	check(t, err)
	l.trust.LedgerKeys = []string{trust.FormatKey(key.PublicKey())}
	l.open()
	verifier, err := ledger.Verifier(l.trust.Fleet, l.trust.LedgerKeys[0])
	check(t, err)
	h := new(history)
	h.add(t, 0, 3, "x")
	signed := func(by note.Signer) []byte {
		return l.requestOf(h, ledger.Origin(l.trust.Fleet), 0, 3, by)
	}
	line, err := l.AddCheckpoint(signed(noteKey{verifier, private}), time.Now())
	check(t, err)
	if !strings.HasPrefix(string(line), "— ida ") {
		t.Errorf("got %q", line)
	}
	stranger, _, err := note.GenerateKey(rand.Reader, verifier.Name())
	check(t, err)
	strangers, err := note.NewSigner(stranger)
	check(t, err)
	if _, err := l.AddCheckpoint(signed(strangers), time.Now()); code(err) != "checkpoint_unsigned" {
		t.Errorf("a stranger's: got %v", err)
	}
}

// noteKey signs notes under the name of a verifier.
type noteKey struct {
	note.Verifier
	key ed25519.PrivateKey
}

func (k noteKey) Sign(msg []byte) ([]byte, error) { return ed25519.Sign(k.key, msg), nil }

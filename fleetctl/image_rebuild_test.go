package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/sshsig"
	"mayfly/policies/trust"
	"mayfly/policies/trust/chain"
	"mayfly/rebuild/image"
	"mayfly/rebuild/release"
	"mayfly/testenv/tinyefi"
)

// rebuilt is a release's statement and what a build of it gives.
func rebuilt(t *testing.T) (*release.Statement, image.Result) {
	t.Helper()
	part := func(name string) release.Part {
		return release.Part{Size: int64(len(name)), SHA256: fmt.Sprintf("%x", sha256.Sum256([]byte(name)))}
	}
	built := image.Result{Kernel: part("kernel"), Stub: part("stub"), Root: part("root"), Lock: part("lock").SHA256, Profile: release.ProfileCloud, Cmdline: "quiet"}
	now := time.Unix(1, 0).UTC()
	return &release.Statement{Kind: release.Kind, Fleet: "lab", Version: 7, Least: 1, Profile: built.Profile, NotBefore: now, NotAfter: now.Add(time.Hour), MaxAge: 60,
		Kernel: built.Kernel, Stub: built.Stub, Root: built.Root, Cmdline: built.Cmdline, Lock: built.Lock, MinPolicy: 1}, built
}

// TestRestate: only a build that is the statement's to the last bit gives its bytes, and the difference is shown.
func TestRestate(t *testing.T) {
	d := believed{trust: &trust.Trust{Version: 1}}
	s, good := rebuilt(t)
	data, err := s.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	other := strings.Repeat("ab", 32)
	for _, tt := range []struct {
		name    string
		change  func(*image.Result)
		differs string
	}{
		{"the same", func(*image.Result) {}, ""},
		{"the kernel", func(r *image.Result) { r.Kernel.SHA256 = other }, release.KernelFile},
		{"the stub", func(r *image.Result) { r.Stub.SHA256 = other }, release.StubFile},
		{"the root", func(r *image.Result) { r.Root.SHA256 = other }, release.RootFile},
		{"the lock", func(r *image.Result) { r.Lock = other }, release.LockFile},
		{"the profile", func(r *image.Result) { r.Profile = release.ProfileMetal }, "profile"},
		{"the command line", func(r *image.Result) { r.Cmdline += " debug" }, "cmdline"},
		{"a size alone", func(r *image.Result) { r.Root.Size++ }, "-"},
	} {
		built := good
		tt.change(&built)
		again, _, err := d.restate(s, built, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		same, err := sameStatement(again, data)
		if err != nil || same != (tt.differs == "") {
			t.Errorf("%s: got same %t, %v", tt.name, same, err)
		}
		var differing []string
		for _, c := range compareStatements(s, again) {
			if c.Is != c.Built {
				differing = append(differing, c.What)
			}
		}
		if got := strings.Join(differing, " "); tt.differs != "-" && got != tt.differs {
			t.Errorf("%s: differs in %q, want %q", tt.name, got, tt.differs)
		}
	}
	// A statement that promises a unified kernel image that this build does not make.
	promised := *s
	promised.UKI, promised.UKIAuthenticode, promised.KernelAuthenticode = &release.Part{Size: 1, SHA256: other}, other, other
	again, _, err := d.restate(&promised, good, t.TempDir())
	if err == nil {
		if same, _ := sameStatement(again, data); again.UKI != nil || !same {
			t.Errorf("got %+v", again)
		}
	}
}

// TestShareSignatures: approvers and builders add to one file in any order, and neither takes the other's signatures away.
func TestShareSignatures(t *testing.T) {
	dir := t.TempDir()
	s, _ := rebuilt(t)
	data, err := s.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, release.StatementFile)
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	key := func(name string) (file, line string) {
		public, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		block, err := ssh.MarshalPrivateKey(private, name)
		if err != nil {
			t.Fatal(err)
		}
		file = filepath.Join(dir, name)
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		k, err := ssh.NewPublicKey(public)
		if err != nil {
			t.Fatal(err)
		}
		return file, trust.FormatKey(k)
	}
	ana, anaLine := key("ana")
	bo, boLine := key("bo")
	dan, danLine := key("dan")
	tp := &trust.Trust{Kind: trust.Kind, Fleet: "lab", Test: true, Version: 1, Threshold: 2, BuilderThreshold: 1,
		Approvers: []trust.Person{{Name: "ana", Keys: []string{anaLine}}, {Name: "bo", Keys: []string{boLine}}}, Builders: []trust.Person{{Name: "dan", Keys: []string{danLine}}}}
	// What an older file of this name was signed with goes; the first signature over these bytes replaces it, whoever makes it.
	signer, err := loadSigner(ana, "")
	if err != nil {
		t.Fatal(err)
	}
	old, err := sshsig.Sign(signer, release.Namespace, []byte("an older release"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(signatures(path), old, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		as        *trust.Trust
		namespace string
		key       string
	}{{asBuilders(tp), release.BuildNamespace, dan}, {tp, release.Namespace, ana}, {tp, release.Namespace, bo}} {
		if _, err := approve(step.as, step.namespace, path, data, step.key); err != nil {
			t.Fatal(err)
		}
	}
	sigs, err := os.ReadFile(signatures(path))
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(sigs, []byte("BEGIN SSH SIGNATURE")); n != 3 {
		t.Errorf("got %d signatures, want 3", n)
	}
	if _, err := release.Open(tp, data, sigs); err != nil {
		t.Error(err)
	}
	if _, err := approve(asBuilders(tp), release.BuildNamespace, path, data, dan); err == nil || !strings.Contains(err.Error(), "dan has signed") {
		t.Errorf("a builder twice: got %v", err)
	}
	if _, err := approve(tp, release.Namespace, path, data, dan); err == nil || !strings.Contains(err.Error(), "is no approver's key") {
		t.Errorf("a builder as approver: got %v", err)
	}
}

// TestLeastOf: the next release shuts out what the published ones do, unless more is asked for; less is refused.
func TestLeastOf(t *testing.T) {
	d := state(t.TempDir())
	lay := func(version, least uint64, published bool) {
		t.Helper()
		s, _ := rebuilt(t)
		s.Version, s.Least = version, least
		data, err := s.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(d.releases(), fmt.Sprint(version))
		files := map[string][]byte{release.StatementFile: data}
		if published {
			files[release.ProofFile] = []byte("proof")
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, content := range files {
			if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, tt := range []struct {
		version, asked, want uint64 // 0: refused
	}{{1, 0, 1}, {9, 0, 1}, {9, 9, 9}, {9, 10, 0}} {
		if got, err := d.leastOf(tt.version, tt.asked); got != tt.want || (err == nil) != (tt.want > 0) {
			t.Errorf("before any release: %+v: got %d, %v", tt, got, err)
		}
	}
	lay(6, 3, true)
	lay(7, 5, true)
	lay(8, 8, false)
	for _, tt := range []struct {
		version, asked, want uint64
	}{{9, 0, 5}, {9, 5, 5}, {9, 7, 7}, {9, 4, 0}, {9, 10, 0}, {3, 0, 0}} {
		if got, err := d.leastOf(tt.version, tt.asked); got != tt.want || (err == nil) != (tt.want > 0) {
			t.Errorf("%+v: got %d, %v", tt, got, err)
		}
	}
}

// TestRestateGoesBack: the image that was stated with an older trust policy inside is found by going back from the one in force, and not by what lies in
// its place; which it was is told.
func TestRestateGoesBack(t *testing.T) {
	key := func() string {
		public, _, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		line, err := ssh.NewPublicKey(public)
		if err != nil {
			t.Fatal(err)
		}
		return trust.FormatKey(line)
	}
	first := func() *trust.Trust {
		return &trust.Trust{Kind: trust.Kind, Fleet: "lab", Test: true, Version: 1, Threshold: 1, Approvers: []trust.Person{{Name: "ana", Keys: []string{key()}}},
			TicketKeys: []string{key()}, ListKeys: []string{key()}}
	}
	marshal := func(p *trust.Trust) []byte {
		data, err := p.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	one, evil := first(), first()
	two := *one
	two.Version, two.Previous, two.MinRelease = 2, one.Sum(), 3
	for _, tt := range []struct {
		name         string
		inside, lies *trust.Trust
		want         uint64
	}{
		{"the one in force", &two, one, 2},
		{"the one before", one, one, 1},
		{"a stranger's, which lies there", evil, evil, 0},
		{"a stranger's, which lies nowhere", evil, one, 0},
		{"the one before, and a stranger's lies there", one, evil, 0},
	} {
		dir, out := t.TempDir(), t.TempDir()
		s, built := rebuilt(t)
		built.EFIStub, built.Uname = tinyefi.Image(""), "6.1"
		for name, data := range map[string][]byte{release.KernelFile: tinyefi.Image("kernel"), release.StubFile: []byte("stub")} {
			if err := os.WriteFile(filepath.Join(out, name), data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := makeUKI(out, built, marshal(tt.inside), s); err != nil {
			t.Fatal(err)
		}
		if err := chain.Write(dir, 1, marshal(tt.lies), nil); err != nil {
			t.Fatal(err)
		}
		again, inside, err := believed{trust: &two, bytes: marshal(&two), chain: dir}.restate(s, built, out)
		if err != nil {
			t.Fatal(err)
		}
		if same := again.UKI != nil && *again.UKI == *s.UKI; same != (tt.want > 0) {
			t.Errorf("%s: got same %t", tt.name, same)
		}
		if (inside == nil) != (tt.want == 0) || inside != nil && inside.Version != tt.want {
			t.Errorf("%s: inside is %+v", tt.name, inside)
		}
	}
}

package history

import (
	"bytes"
	"compress/zlib"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/sshsig"
	"mayfly/policies/trust"
	"mayfly/testenv/softkey"
)

// bench is a repository with people who commit to it by the real git, and keys that are asked for through a real agent's socket.
type bench struct {
	t      *testing.T
	dir    string
	socket string
	keys   map[string]ssh.Signer
	rule   Rule
}

func newBench(t *testing.T, args ...string) *bench {
	t.Helper()
	b := &bench{t: t, dir: t.TempDir(), keys: map[string]ssh.Signer{}, rule: Rule{Fleet: "lab", People: People{}, Deep: []string{"policies/", "go.mod"}}}
	var held []ssh.Signer
	for _, name := range []string{"anna", "anna2", "bert", "cleo", "stranger"} {
		key, err := softkey.New(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		b.keys[name] = key.Signer(softkey.Always)
		held = append(held, b.keys[name])
		if name != "stranger" {
			b.rule.People[key.Authorized()] = strings.TrimSuffix(name, "2")
		}
		if err := os.WriteFile(filepath.Join(b.dir, name+".pub"), []byte(key.Authorized()+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	short, err := os.MkdirTemp("", "mf-h-") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	b.socket = filepath.Join(short, "s")
	l, err := softkey.Listen(b.socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- softkey.NewAgent(held...).Serve(ctx, l) }()
	t.Cleanup(func() {
		stop()
		<-done
		os.RemoveAll(short)
	})
	b.git(append([]string{"init", "-q", "-b", "main"}, args...)...)
	b.write("README", "hello")
	b.git("add", "README")
	b.git("commit", "-q", "-m", "first")
	b.rule.From = b.head()
	return b
}

func (b *bench) repo() string { return filepath.Join(b.dir, "repo") }

// git runs the real git as its user would.
func (b *bench) git(args ...string) string {
	b.t.Helper()
	if err := os.MkdirAll(b.repo(), 0o700); err != nil {
		b.t.Fatal(err)
	}
	cmd := exec.CommandContext(b.t.Context(), "git", append([]string{"-C", b.repo(), "-c", "user.name=Somebody", "-c", "user.email=somebody@lab.invalid", "-c", "gpg.format=ssh"}, args...)...)
	cmd.Env = append(os.Environ(), "SSH_AUTH_SOCK="+b.socket, "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_EDITOR=true")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		b.t.Fatalf("git %q: %v: %s", args, err, stderr.String())
	}
	return strings.TrimSpace(stdout.String())
}

func (b *bench) write(name, text string) {
	b.t.Helper()
	path := filepath.Join(b.repo(), name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) head() string { return b.git("rev-parse", "HEAD") }

// commit changes a file and commits it, signed by somebody's key, or by nobody's.
func (b *bench) commit(name, file, text string) string {
	b.t.Helper()
	b.write(file, text)
	b.git("add", "-A")
	args := []string{"commit", "-q", "-m", "change " + file}
	if name != "" {
		args = append([]string{"-c", "user.signingKey=" + filepath.Join(b.dir, name+".pub")}, append(args, "-S")...)
	}
	b.git(args...)
	return b.head()
}

func (b *bench) open() *Repository {
	b.t.Helper()
	r, err := Open(b.t.Context(), b.repo())
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

func (b *bench) approve(commit string, names ...string) {
	b.t.Helper()
	r := b.open()
	for _, name := range names {
		change, _, err := r.Change(b.t.Context(), b.rule.Fleet, commit, b.rule.People)
		if err != nil {
			b.t.Fatal(err)
		}
		if err := r.Approve(b.t.Context(), change, b.keys[name]); err != nil {
			b.t.Fatal(err)
		}
	}
}

// note puts any text into a commit's note.
func (b *bench) note(commit string, text []byte) {
	b.t.Helper()
	if err := os.WriteFile(filepath.Join(b.dir, "note"), text, 0o600); err != nil {
		b.t.Fatal(err)
	}
	b.git("notes", "--ref", Notes, "append", "-F", filepath.Join(b.dir, "note"), commit)
}

func (b *bench) verify() (Report, Reason) {
	b.t.Helper()
	report, err := b.open().Verify(b.t.Context(), b.rule, "HEAD", nil)
	var refused *Refusal
	if err != nil && !errors.As(err, &refused) {
		b.t.Fatal(err)
	}
	if refused == nil {
		return report, ""
	}
	if !refused.Refused() || !strings.HasPrefix(err.Error(), string(refused.Reason)) {
		b.t.Errorf("error %q", err)
	}
	return report, refused.Reason
}

// approval is somebody's signature over a change that somebody may have changed.
func (b *bench) approval(name, namespace string, change Change) []byte {
	b.t.Helper()
	block, err := sshsig.Sign(b.keys[name], namespace, change.Message())
	if err != nil {
		b.t.Fatal(err)
	}
	return block
}

func TestVerify(t *testing.T) {
	for name, tt := range map[string]struct {
		make func(b *bench)
		want Reason
		text string // in the refusal
	}{
		"nothing new":                 {func(b *bench) {}, "", ""},
		"signed and approved":         {func(b *bench) { b.approve(b.commit("anna", "a.txt", "1"), "bert") }, "", ""},
		"by a person's second key":    {func(b *bench) { b.approve(b.commit("anna2", "a.txt", "1"), "bert") }, "", ""},
		"unsigned":                    {func(b *bench) { b.commit("", "a.txt", "1") }, Unsigned, "not signed"},
		"by a stranger":               {func(b *bench) { b.commit("stranger", "a.txt", "1") }, SignerUnknown, "nobody's enrolled key"},
		"nobody approved":             {func(b *bench) { b.commit("anna", "a.txt", "1") }, NotApproved, "approved by 0"},
		"approved by oneself":         {func(b *bench) { b.approve(b.commit("anna", "a.txt", "1"), "anna") }, NotApproved, "approved by 0"},
		"approved by one's other key": {func(b *bench) { b.approve(b.commit("anna", "a.txt", "1"), "anna2") }, NotApproved, "approved by 0"},
		"approved by a stranger":      {func(b *bench) { b.approve(b.commit("anna", "a.txt", "1"), "stranger") }, NotApproved, "nobody's enrolled key"},
		"deep, one other":             {func(b *bench) { b.approve(b.commit("anna", "policies/p.go", "1"), "bert") }, DeepNotApproved, `touches "policies/p.go"`},
		"deep, the same other twice":  {func(b *bench) { b.approve(b.commit("anna", "go.mod", "1"), "bert", "bert") }, DeepNotApproved, "approved by 1"},
		"deep, two others":            {func(b *bench) { b.approve(b.commit("anna", "go.mod", "1"), "bert", "cleo") }, "", ""},
		"a name that only begins so":  {func(b *bench) { b.approve(b.commit("anna", "go.mod.txt", "1"), "bert") }, "", ""},
		"deep, removed": {func(b *bench) {
			b.approve(b.commit("anna", "policies/p.go", "1"), "bert", "cleo")
			b.git("rm", "-q", "policies/p.go")
			b.approve(b.commit("anna", "a.txt", "1"), "bert")
		}, DeepNotApproved, "policies/p.go"},
		"deep, renamed away": {func(b *bench) {
			b.approve(b.commit("anna", "policies/p.go", "1"), "bert", "cleo")
			b.git("mv", "policies/p.go", "p.go")
			b.approve(b.commit("anna", "a.txt", "1"), "bert")
		}, DeepNotApproved, "policies/p.go"},
		"one bad commit before a good one": {func(b *bench) {
			b.commit("anna", "a.txt", "1")
			b.approve(b.commit("anna", "a.txt", "2"), "bert")
		}, NotApproved, "by anna"},
		"approval of another commit": {func(b *bench) {
			first := b.commit("anna", "a.txt", "1")
			b.approve(first, "bert")
			second := b.commit("anna", "a.txt", "2")
			b.note(second, []byte(b.git("notes", "--ref", Notes, "show", first)))
		}, NotApproved, "does not match"},
		"approval for another fleet": {func(b *bench) {
			id := b.commit("anna", "a.txt", "1")
			change, _, err := b.open().Change(b.t.Context(), "other", id, b.rule.People)
			if err != nil {
				b.t.Fatal(err)
			}
			b.note(id, b.approval("bert", Namespace, change))
		}, NotApproved, "does not match"},
		"approval of other content": {func(b *bench) {
			id := b.commit("anna", "a.txt", "1")
			b.note(id, b.approval("bert", Namespace, Change{b.rule.Fleet, id, strings.Repeat("0", 64)}))
		}, NotApproved, "does not match"},
		"approval in another namespace": {func(b *bench) {
			id := b.commit("anna", "a.txt", "1")
			change, _, err := b.open().Change(b.t.Context(), b.rule.Fleet, id, b.rule.People)
			if err != nil {
				b.t.Fatal(err)
			}
			b.note(id, b.approval("bert", gitNamespace, change))
		}, NotApproved, "namespace"},
		"garbage beside an approval": {func(b *bench) {
			id := b.commit("anna", "a.txt", "1")
			b.note(id, []byte("looks good to me"))
			b.approve(id, "bert")
			b.note(id, []byte("-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----"))
		}, "", ""},
		"a merge that nobody approved": {func(b *bench) {
			b.merge("a.txt")
		}, NotApproved, "by anna"},
		"a merge of deep changes, approved by one": {func(b *bench) {
			b.approve(b.merge("go.mod"), "bert")
		}, DeepNotApproved, "go.mod"},
		"a merge of deep changes": {func(b *bench) {
			b.approve(b.merge("go.mod"), "bert", "cleo")
		}, "", ""},
		"an unsigned commit on a merged branch": {func(b *bench) {
			b.git("checkout", "-q", "-b", "side")
			b.commit("", "b.txt", "1")
			b.git("checkout", "-q", "main")
			b.approve(b.commit("anna", "c.txt", "1"), "bert")
			b.git("-c", "user.signingKey="+filepath.Join(b.dir, "anna.pub"), "merge", "-q", "-S", "--no-ff", "-m", "merge", "side")
			b.approve(b.head(), "bert")
		}, Unsigned, "not signed"},
		"a signature moved to another commit": {func(b *bench) {
			good := b.commit("anna", "a.txt", "1")
			raw := b.git("cat-file", "commit", good)
			forged := strings.Replace(raw, "change a.txt", "change everything", 1) + "\n"
			if err := os.WriteFile(filepath.Join(b.dir, "forged"), []byte(forged), 0o600); err != nil {
				b.t.Fatal(err)
			}
			b.git("reset", "-q", "--hard", b.git("hash-object", "-t", "commit", "-w", filepath.Join(b.dir, "forged")))
		}, BadSignature, "does not hold"},
		"a submodule": {func(b *bench) {
			b.git("update-index", "--add", "--cacheinfo", "160000,"+b.rule.From+",module")
			b.git("-c", "user.signingKey="+filepath.Join(b.dir, "anna.pub"), "commit", "-q", "-S", "-m", "module")
		}, NotAFile, "module"},
		"a replaced object": {func(b *bench) { // git would show the good one
			bad := b.commit("", "a.txt", "1")
			b.git("reset", "-q", "--hard", "HEAD^")
			good := b.commit("anna", "a.txt", "1")
			b.approve(good, "bert")
			b.git("reset", "-q", "--hard", bad)
			b.git("replace", bad, good)
		}, Unsigned, "not signed"},
		"deep by its name without a slash": {func(b *bench) {
			b.rule.Deep = []string{"policies"}
			b.approve(b.commit("anna", "policies/p.go", "1"), "bert")
		}, DeepNotApproved, "policies/p.go"},
		"a root commit beside": {func(b *bench) {
			b.git("checkout", "-q", "--orphan", "side")
			b.approve(b.commit("anna", "go.mod", "1"), "bert")
			b.git("checkout", "-q", "main")
			b.git("-c", "user.signingKey="+filepath.Join(b.dir, "anna.pub"), "merge", "-q", "-S", "--allow-unrelated-histories", "-m", "merge", "side")
			b.approve(b.head(), "bert", "cleo")
		}, DeepNotApproved, "go.mod"},
		"a mode that changed after the approval": {func(b *bench) {
			id := b.commit("anna", "a.txt", "1")
			change, _, err := b.open().Change(b.t.Context(), b.rule.Fleet, id, b.rule.People)
			if err != nil {
				b.t.Fatal(err)
			}
			if err := os.Chmod(filepath.Join(b.repo(), "a.txt"), 0o700); err != nil {
				b.t.Fatal(err)
			}
			b.git("add", "-A")
			b.git("-c", "user.signingKey="+filepath.Join(b.dir, "anna.pub"), "commit", "-q", "-S", "--amend", "-m", "again")
			b.note(b.head(), b.approval("bert", Namespace, Change{change.Fleet, b.head(), change.Content}))
		}, NotApproved, "does not match"},
		"a long note": {func(b *bench) {
			b.note(b.commit("anna", "a.txt", "1"), bytes.Repeat([]byte("x"), maxNote+1))
		}, NotApproved, "too long"},
		"junk under the commit's other name": {func(b *bench) {
			id := b.commit("anna", "a.txt", "1")
			b.approve(id, "bert")
			tree := b.git("ls-tree", Notes)
			junk := b.git("hash-object", "-w", "a.txt")
			sub := b.mktree("100644 blob " + strings.Fields(strings.ReplaceAll(tree, "\t", " "))[2] + "\t" + id[2:] + "\n")
			b.git("update-ref", Notes, b.git("commit-tree", "-m", "x", b.mktree("100644 blob "+junk+"\t"+id+"\n040000 tree "+sub+"\t"+id[:2]+"\n")))
		}, "", ""},
		"a long commit": {func(b *bench) {
			if err := os.WriteFile(filepath.Join(b.dir, "long"), bytes.Repeat([]byte("long\n"), maxCommit/5+1), 0o600); err != nil {
				b.t.Fatal(err)
			}
			b.git("commit", "-q", "--allow-empty", "-F", filepath.Join(b.dir, "long"))
		}, Malformed, "too long"},
		"a file called .git": {func(b *bench) {
			blob := b.git("hash-object", "-w", "README")
			b.git("update-ref", "HEAD", b.git("-c", "user.signingKey="+filepath.Join(b.dir, "anna.pub"), "commit-tree", "-S", "-p", "HEAD", "-m", "x", b.mktree("100644 blob "+blob+"\t.GIT\n")))
		}, NotAFile, "no file's name"},
		"a graft": {func(b *bench) {
			bad := b.commit("", "policies/p.go", "1")
			b.approve(b.commit("anna", "a.txt", "1"), "bert")
			b.write(".git/info/grafts", b.head()+" "+b.rule.From+"\n")
			_ = bad
		}, Unsigned, "not signed"},
		"another branch": {func(b *bench) {
			b.git("checkout", "-q", "--orphan", "new")
			b.approve(b.commit("anna", "a.txt", "1"), "bert")
		}, NoAncestor, "no ancestor"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			tt.make(b)
			report, got := b.verify()
			if got != tt.want {
				t.Fatalf("got %q, want %q: %+v", got, tt.want, report)
			}
			if tt.want == "" {
				if report.Refused != 0 || report.To != b.head() {
					t.Errorf("report %+v", report)
				}
				return
			}
			_, err := b.open().Verify(t.Context(), b.rule, "HEAD", nil)
			if err == nil || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v, want %q in it", err, tt.text)
			}
		})
	}
}

// mktree makes a tree of a listing.
func (b *bench) mktree(listing string) string {
	b.t.Helper()
	cmd := exec.CommandContext(b.t.Context(), "git", "-C", b.repo(), "mktree")
	cmd.Stdin = strings.NewReader(listing)
	out, err := cmd.Output()
	if err != nil {
		b.t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// TestCommitGraph: git believes a commit-graph about parents and trees; a lying one hides no commit.
func TestCommitGraph(t *testing.T) {
	b := newBench(t)
	b.commit("", "policies/evil.go", "1")
	top := b.commit("anna", "a.txt", "1")
	b.approve(top, "bert")
	object := filepath.Join(b.repo(), ".git", "objects", top[:2], top[2:])
	kept, err := os.ReadFile(object)
	if err != nil {
		t.Fatal(err)
	}
	lie := strings.NewReplacer(b.git("rev-parse", "HEAD^"), b.rule.From, b.git("rev-parse", "HEAD^{tree}"), b.git("rev-parse", b.rule.From+"^{tree}")).Replace(b.git("cat-file", "commit", top) + "\n")
	b.loose(object, lie)
	b.git("-c", "core.commitGraph=true", "commit-graph", "write", "--reachable")
	if err := os.WriteFile(object, kept, 0o400); err != nil {
		t.Fatal(err)
	}
	if got := b.git("-c", "core.commitGraph=true", "rev-list", "--count", "HEAD"); got != "2" {
		t.Fatalf("git itself counts %s commits, so the test would prove nothing", got)
	}
	if report, got := b.verify(); got != Unsigned || len(report.Commits) != 2 || report.Commits[0].Deep == nil {
		t.Errorf("got %q, %+v", got, report)
	}
	// An object that is not what its id says is nothing at all.
	evil := b.git("rev-parse", "HEAD^")
	b.loose(filepath.Join(b.repo(), ".git", "objects", evil[:2], evil[2:]), b.git("cat-file", "commit", b.rule.From)+"\n")
	if _, got := b.verify(); got != Damaged {
		t.Errorf("got %q, want %s", got, Damaged)
	}
}

// loose writes a commit as a loose object where another one is.
func (b *bench) loose(path, text string) {
	b.t.Helper()
	var packed bytes.Buffer
	w := zlib.NewWriter(&packed)
	fmt.Fprintf(w, "commit %d\x00%s", len(text), text)
	if err := errors.Join(w.Close(), os.Remove(path), os.WriteFile(path, packed.Bytes(), 0o400)); err != nil {
		b.t.Fatal(err)
	}
}

// TestParseTree: what git would never write is no tree.
func TestParseTree(t *testing.T) {
	e := func(mode, name string) string { return mode + " " + name + "\x00" + strings.Repeat("i", 20) }
	for name, tt := range map[string]struct {
		text string
		ok   bool
	}{
		"empty":               {"", true},
		"in order":            {e("100644", "a") + e("100755", "b") + e("120000", "c") + e("40000", "d"), true},
		"a directory's order": {e("100644", "a-b") + e("40000", "a") + e("100644", "a0"), true},
		"out of order":        {e("100644", "b") + e("100644", "a"), false},
		"twice":               {e("100644", "a") + e("100644", "a"), false},
		"file and directory":  {e("100644", "a") + e("100644", "a-b") + e("40000", "a"), false},
		"submodule":           {e("160000", "a"), false},
		"mode":                {e("100664", "a"), false},
		"zero before a mode":  {e("040000", "a"), false},
		"dots":                {e("100644", ".."), false},
		"git":                 {e("40000", ".Git"), false},
		"slash":               {e("100644", "a/b"), false},
		"no name":             {e("100644", ""), false},
		"cut":                 {e("100644", "a")[:20], false},
		"no space":            {"100644\x00" + strings.Repeat("i", 20), false},
	} {
		if _, err := parseTree([]byte(tt.text), 20); (err == nil) != tt.ok {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// merge makes a branch that changes a file, approved, and a signed merge of it, which is not. It returns the merge.
func (b *bench) merge(file string) string {
	b.t.Helper()
	b.git("checkout", "-q", "-b", "side")
	b.approve(b.commit("bert", file, "1"), "anna", "cleo")
	b.git("checkout", "-q", "main")
	b.approve(b.commit("bert", "c.txt", "1"), "cleo")
	b.git("-c", "user.signingKey="+filepath.Join(b.dir, "anna.pub"), "merge", "-q", "-S", "--no-ff", "-m", "merge", "side")
	return b.head()
}

// TestSHA256 checks a repository whose objects git names by SHA-256.
func TestSHA256(t *testing.T) {
	b := newBench(t, "--object-format=sha256")
	b.approve(b.commit("anna", "a.txt", "1"), "bert")
	if report, got := b.verify(); got != "" || len(report.Commits) != 1 || len(report.To) != 64 {
		t.Errorf("got %q, %+v", got, report)
	}
}

// TestReport sees that every commit is in the report, with who signed and approved it.
func TestReport(t *testing.T) {
	b := newBench(t)
	first := b.commit("anna", "go.mod", "1")
	b.approve(first, "cleo", "bert")
	second := b.commit("bert", "a.txt", "1")
	var steps []int
	report, err := b.open().Verify(t.Context(), b.rule, "main", func(done, all int) { steps = append(steps, done, all) })
	var refused *Refusal
	if !errors.As(err, &refused) || refused.Commit != second {
		t.Errorf("got %v", err)
	}
	want := Report{From: b.rule.From, To: second, Refused: 1, Commits: []Checked{
		{Commit: first, Subject: "change go.mod", Signer: "anna", Approvers: []string{"cleo", "bert"}, Deep: []string{"go.mod"}},
		{Commit: second, Subject: "change a.txt", Signer: "bert", Approvers: []string{}, Reason: NotApproved, Text: "by bert, approved by 0: it takes one other person"},
	}}
	if !reflect.DeepEqual(report, want) {
		t.Errorf("got %+v, want %+v", report, want)
	}
	if !slices.Equal(steps, []int{1, 2, 2, 2}) {
		t.Errorf("progress %v", steps)
	}
}

func TestZeroRulePassesNothing(t *testing.T) {
	b := newBench(t)
	for name, change := range map[string]func(*Rule){
		"nothing":    func(r *Rule) { *r = Rule{} },
		"no fleet":   func(r *Rule) { r.Fleet = "" },
		"no people":  func(r *Rule) { r.People = nil },
		"no commit":  func(r *Rule) { r.From = "" },
		"an option":  func(r *Rule) { r.From = "--all" },
		"no such":    func(r *Rule) { r.From = strings.Repeat("1", 40) },
		"no such id": func(r *Rule) { r.From = "nobody" },
	} {
		rule := b.rule
		change(&rule)
		if _, err := b.open().Verify(t.Context(), rule, "HEAD", nil); err == nil {
			t.Errorf("%s: passes", name)
		}
	}
	if _, err := b.open().Verify(t.Context(), b.rule, "--all", nil); err == nil {
		t.Error("an option as a revision passes")
	}
}

func TestOpenRefuses(t *testing.T) {
	if _, err := Open(t.Context(), t.TempDir()); err == nil {
		t.Error("an empty directory is a repository")
	}
	b := newBench(t)
	b.commit("anna", "a.txt", "1")
	clone := filepath.Join(t.TempDir(), "shallow")
	b.git("clone", "-q", "--depth", "1", "file://"+b.repo(), clone)
	_, err := Open(t.Context(), clone)
	var refused *Refusal
	if !errors.As(err, &refused) || refused.Reason != Shallow {
		t.Errorf("got %v, want %s", err, Shallow)
	}
}

// TestExport: what is exported is what was committed, to the byte, and nothing that lies beside it.
func TestExport(t *testing.T) {
	b := newBench(t)
	b.write("dir/run.sh", "#!/bin/sh\n")
	if err := os.Chmod(filepath.Join(b.repo(), "dir/run.sh"), 0o700); err != nil {
		t.Fatal(err)
	}
	b.write(".gitattributes", "README export-ignore\n*.txt text eol=crlf\n")
	b.write(".gitignore", "hidden.go\n")
	id := b.commit("anna", "a.txt", "one\ntwo\n")
	b.write("hidden.go", "package hidden")
	b.write("README", "changed since")
	dir := t.TempDir()
	if err := b.open().Export(t.Context(), id, dir); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		data, err := os.ReadFile(path)
		got[name] = string(data)
		if info.Mode()&0o100 != 0 {
			got[name] += " (program)"
		}
		return err
	})
	want := map[string]string{"README": "hello", "a.txt": "one\ntwo\n", "dir/run.sh": "#!/bin/sh\n (program)",
		".gitattributes": "README export-ignore\n*.txt text eol=crlf\n", ".gitignore": "hidden.go\n"}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	if err := b.open().Export(t.Context(), id, dir); err == nil {
		t.Error("what was there is overwritten")
	}
	if data, err := os.ReadFile(filepath.Join(dir, "README")); err != nil || string(data) != "hello" {
		t.Errorf("README is %q now, %v", data, err)
	}
	if err := b.open().Export(t.Context(), "HEAD", t.TempDir()); err == nil {
		t.Error("a name that moves is exported")
	}
	if err := os.Symlink("/tmp/elsewhere.go", filepath.Join(b.repo(), "main.go")); err != nil {
		t.Fatal(err)
	}
	var refused *Refusal
	if err := b.open().Export(t.Context(), b.commit("anna", "b.txt", "1"), t.TempDir()); !errors.As(err, &refused) || refused.Reason != NotAFile {
		t.Errorf("a tree with a link: got %v", err)
	}
}

// TestConfigurationRunsNothing: neither the repository's own configuration nor its hooks run a program.
func TestConfigurationRunsNothing(t *testing.T) {
	b := newBench(t)
	b.approve(b.commit("anna", "a.txt", "1"), "bert")
	trap := filepath.Join(b.dir, "trap")
	ran := filepath.Join(b.dir, "ran")
	if err := os.WriteFile(trap, []byte("#!/bin/sh\ntouch "+ran+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	b.write(".gitattributes", "* diff=trap filter=trap\n")
	for _, key := range []string{"core.fsmonitor", "diff.trap.command", "diff.external", "core.pager", "diff.trap.textconv", "gpg.ssh.program", "core.sshCommand", "filter.trap.smudge", "filter.trap.clean", "filter.trap.process"} {
		b.git("config", key, trap)
	}
	if err := os.WriteFile(filepath.Join(b.repo(), ".git", "hooks", "post-index-change"), []byte("#!/bin/sh\ntouch "+ran+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, got := b.verify(); got != "" {
		t.Errorf("got %s", got)
	}
	if err := b.open().Export(t.Context(), b.git("rev-parse", "HEAD"), t.TempDir()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(ran); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a program of the repository ran: %v", err)
	}
}

func TestParseCommit(t *testing.T) {
	id := strings.Repeat("a", 40)
	tree := "tree " + strings.Repeat("b", 40) + "\n"
	who := "author A <a> 1 +0000\ncommitter A <a> 1 +0000\n"
	for name, tt := range map[string]struct{ text, want string }{
		"plain":              {tree + who + "\nsubject\n\nbody\n", ""},
		"no message":         {tree + who, "without a message"},
		"no tree":            {who + "\nx", "without a tree"},
		"two trees":          {tree + tree + who + "\nx", "header"},
		"bad tree":           {"tree zz\n" + who + "\nx", "header"},
		"bad parent":         {tree + "parent -x\n" + who + "\nx", "header"},
		"continued nothing":  {" x\n" + tree + who + "\nx", "continued"},
		"a header by itself": {tree + "alone\n" + who + "\nx", "header"},
		"two signatures":     {tree + who + "gpgsig a\n b\ngpgsig c\n\nx", "two signatures"},
		"two kinds":          {tree + who + "gpgsig a\n b\ngpgsig-sha256 c\n\nx", "another format"},
		"the other kind":     {tree + who + "gpgsig-sha256 c\n\nx", "another format"},
		"empty":              {"", "without"},
	} {
		c, err := parseCommit(id, []byte(tt.text))
		if tt.want == "" {
			if err != nil || string(c.signed) != tt.text || c.subject != "subject" {
				t.Errorf("%s: %+v, %v", name, c, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
	c, err := parseCommit(id, []byte(tree+"gpgsig a\n b\nmergetag x\n y\n"+who+"\n\x1b[31mred\u202e\n"))
	if err != nil || string(c.sig) != "a\nb\n" || strings.Contains(string(c.signed), "gpgsig") || !strings.Contains(string(c.signed), "mergetag x\n y\n") || c.subject != "?[31mred?" {
		t.Errorf("%+v, %v", c, err)
	}
}

// TestReasonsAreDocumented holds the page against the code.
func TestReasonsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/formats/history.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range Reasons {
		if !strings.Contains(string(page), "| `"+string(r)+"` |") {
			t.Errorf("%s is not on the page", r)
		}
	}
	if n := strings.Count(string(page), "| `history_"); n != len(Reasons) {
		t.Errorf("the page has %d reasons, the code %d", n, len(Reasons))
	}
	message := Change{"lab", strings.Repeat("c", 40), strings.Repeat("d", 64)}.Message()
	if !strings.Contains(string(page), strings.NewReplacer(strings.Repeat("c", 40), "COMMIT", strings.Repeat("d", 64), "CONTENT", "lab", "FLEET").Replace(string(message))) {
		t.Errorf("the page has another message than %q", message)
	}
}

// FuzzParseCommit: any commit object is read or refused; what is read gives back all but its signature.
func FuzzParseCommit(f *testing.F) {
	id := strings.Repeat("a", 40)
	f.Add([]byte("tree " + strings.Repeat("b", 40) + "\nparent " + id + "\ngpgsig a\n b\n\nx\n"))
	f.Add([]byte("tree " + strings.Repeat("b", 40) + "\n\n"))
	f.Add([]byte(" \n\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parseCommit(id, data)
		if err != nil {
			return
		}
		if c.sig == nil && !bytes.Equal(c.signed, data) {
			t.Errorf("%q is not %q", c.signed, data)
		}
		if _, err := c.signer(People{}); err == nil {
			t.Error("nobody signed it")
		}
	})
}

// FuzzTree: any tree object is read or refused, and what is read has each name once.
func FuzzTree(f *testing.F) {
	f.Add([]byte("100644 a\x00iiiiiiiiiiiiiiiiiiii40000 b\x00iiiiiiiiiiiiiiiiiiii"))
	f.Add([]byte("160000 a\x00iiiiiiiiiiiiiiiiiiii"))
	f.Fuzz(func(t *testing.T, data []byte) {
		all, err := parseTree(data, 20)
		if err != nil {
			return
		}
		size, names := 0, map[string]bool{}
		for _, e := range all {
			size += len(e.mode) + 1 + len(e.path) + 1 + 20
			names[e.path] = true
		}
		if size != len(data) || len(names) != len(all) {
			t.Errorf("%d bytes of %d, %d names of %d", size, len(data), len(names), len(all))
		}
	})
}

// FuzzNote: any note is read or adds nothing, and never more people than there are.
func FuzzNote(f *testing.F) {
	key, err := softkey.New(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	signer := key.Signer(softkey.Always)
	change := Change{"lab", strings.Repeat("a", 40), strings.Repeat("b", 64)}
	block, err := sshsig.Sign(signer, Namespace, change.Message())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(block)
	f.Add(append(bytes.Clone(block), block...))
	f.Add([]byte("looks good\n\n" + string(block)))
	f.Fuzz(func(t *testing.T, note []byte) {
		names, _ := approvers(People{trust.FormatKey(signer.PublicKey()): "anna"}, change, note)
		if len(names) > 1 {
			t.Errorf("got %q", names)
		}
		if names, _ := approvers(People{}, change, note); len(names) != 0 {
			t.Errorf("strangers %q count", names)
		}
	})
}

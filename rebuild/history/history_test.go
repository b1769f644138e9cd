package history

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"mayfly/internal/sshsig"
	"mayfly/policies/trust"
	"mayfly/testenv/softkey"
)

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

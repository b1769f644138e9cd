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
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/sshsig"
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

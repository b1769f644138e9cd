package history

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"mayfly/internal/hint"
)

// Implementation limits.
const (
	maxCommits = 1_000_000 // commits that are looked at
	maxCommit  = 1 << 20   // bytes of a commit object
	maxTree    = 256 << 20 // bytes of a tree, or of a listing of notes
	maxSaid    = 8 << 10   // bytes of git's own complaint
)

// Repository is a git repository, read with nothing of the machine's or the user's configuration: no replaced objects, no grafts, no hooks. Git is asked
// for objects by their ids, and each is held against its id; which commits, trees and files there are is read from the objects, since git itself
// believes files beside them (a commit-graph, say).
type Repository struct{ dir string }

// Open finds the repository whose work tree is at dir, or that is dir, bare.
func Open(ctx context.Context, dir string) (*Repository, error) {
	r := &Repository{dir: dir}
	if _, err := exec.LookPath("git"); err != nil {
		return nil, hint.New(fmt.Errorf("looking for git: %w", err), "install git")
	}
	shallow, err := r.text(ctx, "rev-parse", "--is-shallow-repository")
	if err != nil {
		return nil, hint.New(fmt.Errorf("opening the repository at %s: %w", dir, err), "give the directory of a git repository")
	}
	if shallow != "false" {
		return nil, refuse(Shallow, "", "the repository at %s is shallow: commits are missing", dir)
	}
	return r, nil
}

// command is git on this repository. The repository's own configuration is read, and none of it can run a program in what is called here.
func (r *Repository) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "git", append([]string{"-C", r.dir, "-c", "safe.directory=*", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null",
		"-c", "core.quotePath=false", "-c", "core.commitGraph=false", "--no-pager"}, args...)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "LC_ALL=C", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null",
		"GIT_NO_REPLACE_OBJECTS=1", "GIT_GRAFT_FILE=/dev/null", "GIT_TERMINAL_PROMPT=0", "GIT_OPTIONAL_LOCKS=0", "GIT_NO_LAZY_FETCH=1"}
	return cmd
}

// run returns what git prints, at most max bytes of it.
func (r *Repository) run(ctx context.Context, stdin io.Reader, max int64, args ...string) ([]byte, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := r.command(ctx, args...)
	said := &bounded{max: maxSaid}
	cmd.Stdin, cmd.Stderr = stdin, said
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting git %s: %w", args[0], err)
	}
	out, err := io.ReadAll(io.LimitReader(stdout, max+1))
	if int64(len(out)) > max {
		cancel()
		return nil, errors.Join(fmt.Errorf("git %s: more than %d bytes", args[0], max), ignoreExit(cmd.Wait()))
	}
	if err = errors.Join(err, cmd.Wait()); err != nil {
		return nil, fmt.Errorf("git %s: %w: %s", args[0], err, strings.TrimSpace(said.String()))
	}
	return out, nil
}

// ignoreExit leaves out that a program was ended that we ended.
func ignoreExit(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil
	}
	return err
}

func (r *Repository) text(ctx context.Context, args ...string) (string, error) {
	out, err := r.run(ctx, nil, maxSaid, args...)
	return strings.TrimSpace(string(out)), err
}

// bounded keeps the first max bytes.
type bounded struct {
	bytes.Buffer
	max int
}

func (b *bounded) Write(p []byte) (int, error) {
	b.Buffer.Write(p[:min(len(p), max(b.max-b.Len(), 0))])
	return len(p), nil
}

// Commit returns the id of the commit that a revision names.
func (r *Repository) Commit(ctx context.Context, revision string) (string, error) {
	if revision == "" || strings.HasPrefix(revision, "-") {
		return "", fmt.Errorf("%q is no revision", revision)
	}
	id, err := r.text(ctx, "rev-parse", "--verify", "--quiet", "--end-of-options", revision+"^{commit}")
	if err != nil || !isID(id) {
		return "", hint.New(fmt.Errorf("no commit %q in %s", revision, r.dir), "give a branch, a tag or a commit's id; git fetch brings what is missing")
	}
	return id, nil
}

// isID reports whether a text is an object's whole id: SHA-1 or SHA-256 in small hex.
func isID(s string) bool {
	return (len(s) == 40 || len(s) == 64) && strings.Trim(s, "0123456789abcdef") == ""
}

func short(id string) string { return id[:min(len(id), 12)] }

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"mayfly/internal/command"
)

// TestSourceCommit: the commit is named where all files are its own, and not where git was told to look away.
func TestSourceCommit(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(t *testing.T, dir string, git func(...string))
		want   string // in the note; empty: the commit is named
	}{
		{"as committed", func(*testing.T, string, func(...string)) {}, ""},
		{"a file beside it", func(t *testing.T, dir string, _ func(...string)) { put(t, dir, "new.go", "package x") }, "new.go is there"},
		{"one that is excluded", func(t *testing.T, dir string, _ func(...string)) {
			put(t, dir, ".git/info/exclude", "back.go\n")
			put(t, dir, "back.go", "package x")
		}, "back.go is there"},
		{"one that .gitignore leaves out", func(t *testing.T, dir string, _ func(...string)) { put(t, dir, "ignored.go", "package x") }, "ignored.go is there"},
		{"a change", func(t *testing.T, dir string, _ func(...string)) { put(t, dir, "a.go", "package y") }, "a.go differs"},
		{"a change that is assumed not to be there", func(t *testing.T, dir string, git func(...string)) {
			git("update-index", "--assume-unchanged", "a.go")
			put(t, dir, "a.go", "package y")
		}, "a.go differs"},
		{"a change that is skipped", func(t *testing.T, dir string, git func(...string)) {
			git("update-index", "--skip-worktree", "a.go")
			put(t, dir, "a.go", "package y")
		}, "a.go differs"},
		{"a change that a filter takes back", func(t *testing.T, dir string, git func(...string)) {
			git("config", "filter.back.clean", "git cat-file blob HEAD:a.go")
			put(t, dir, ".git/info/attributes", "a.go filter=back\n")
			put(t, dir, "a.go", "package y")
		}, "a.go differs"},
		{"a commit that is shown as another", func(t *testing.T, dir string, git func(...string)) {
			put(t, dir, "a.go", "package y")
			git("commit", "-qam", "two")
			git("replace", "HEAD~1", "HEAD")
			git("reset", "-q", "--soft", "HEAD~1")
		}, "a.go differs"},
		{"a file less", func(t *testing.T, dir string, _ func(...string)) {
			if err := os.Remove(filepath.Join(dir, "sub/b.go")); err != nil {
				t.Fatal(err)
			}
		}, "is not there"},
		{"a link in place of a file", func(t *testing.T, dir string, _ func(...string)) {
			if err := os.Remove(filepath.Join(dir, "a.go")); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink("sub/b.go", filepath.Join(dir, "a.go")); err != nil {
				t.Fatal(err)
			}
		}, "no such file"},
		{"no repository", func(t *testing.T, dir string, _ func(...string)) {
			if err := os.RemoveAll(filepath.Join(dir, ".git")); err != nil {
				t.Fatal(err)
			}
		}, "names no commit"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			git := func(args ...string) {
				t.Helper()
				cmd := exec.CommandContext(t.Context(), "git", append([]string{"-C", dir, "-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgSign=false"}, args...)...)
				if text, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("git %v: %v\n%s", args, err, text)
				}
			}
			git("init", "-q")
			put(t, dir, "a.go", "package x")
			put(t, dir, "sub/b.go", "package b")
			put(t, dir, ".gitignore", "ignored.go\n")
			if err := os.Symlink("a.go", filepath.Join(dir, "link")); err != nil {
				t.Fatal(err)
			}
			git("add", "-A")
			git("commit", "-qm", "one")
			tt.change(t, dir, git)
			var stderr bytes.Buffer
			commit := sourceCommit(t.Context(), &command.Call{Stderr: &stderr}, dir, dir)
			if (commit != "") != (tt.want == "") || !strings.Contains(stderr.String(), tt.want) {
				t.Errorf("got %q, %s", commit, stderr.String())
			}
		})
	}
}

func put(t *testing.T, dir, name, content string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

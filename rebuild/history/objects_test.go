package history

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

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

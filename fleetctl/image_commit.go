package main

import (
	"bytes"
	"context"
	"crypto/sha1" //nolint:gosec // git's names of files
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"mayfly/internal/command"
)

// sourceCommit is the commit that was built: HEAD of source, where every file in the directory that was built is the commit's, byte for byte, and none
// lies beside them; otherwise none. Git's own comparison is not asked: it passes over what people told it to ignore, and the compiler does not.
func sourceCommit(ctx context.Context, c *command.Call, source, built string) string {
	commit, files, err := committed(ctx, source)
	if err == nil {
		err = sameFiles(built, files)
	}
	if err != nil {
		fmt.Fprintf(c.Stderr, "fleetctl: note: the provenance names no commit: %s: %v\n", source, err)
		return ""
	}
	return commit
}

// committedFile is a file of a commit: what git calls its mode, and the hash of its content.
type committedFile struct{ mode, sum string }

const (
	gitFile    = "100644"
	gitProgram = "100755"
	gitLink    = "120000"
)

// committed lists the files of HEAD below source.
func committed(ctx context.Context, source string) (commit string, files map[string]committedFile, err error) {
	git := func(args ...string) ([]byte, error) {
		cmd := exec.CommandContext(ctx, "git", append([]string{"-C", source, "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"}, args...)...)
		env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "GIT_") }) // another repository, or another HEAD
		cmd.Env = append(env, "LC_ALL=C", "GIT_OPTIONAL_LOCKS=0", "GIT_NO_REPLACE_OBJECTS=1")
		return cmd.Output()
	}
	head, err := git("rev-parse", "--verify", "HEAD^{commit}")
	if err != nil {
		return "", nil, err
	}
	commit = strings.TrimSpace(string(head))
	list, err := git("ls-tree", "-r", "-z", commit)
	if err != nil {
		return "", nil, err
	}
	files = map[string]committedFile{}
	for line := range strings.SplitSeq(strings.TrimSuffix(string(list), "\x00"), "\x00") {
		about, name, ok := strings.Cut(line, "\t")
		words := strings.Fields(about)
		if !ok || len(words) != 3 {
			return "", nil, fmt.Errorf("git ls-tree wrote %.100q", line)
		}
		files[name] = committedFile{words[0], words[2]}
	}
	return commit, files, nil
}

// sameFiles wants a directory to hold these files and no others, but for .git.
func sameFiles(dir string, files map[string]committedFile) error {
	seen := 0
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		switch {
		case name == ".git" && e.IsDir():
			return filepath.SkipDir
		case name == ".git" || e.IsDir():
			return nil
		}
		want, ok := files[filepath.ToSlash(name)]
		if !ok {
			return fmt.Errorf("%s is there and was not committed", name)
		}
		seen++
		return sameFile(path, name, e.Type(), want)
	})
	if err == nil && seen != len(files) {
		err = errors.New("a file of the commit is not there")
	}
	return err
}

func sameFile(path, name string, kind fs.FileMode, want committedFile) error {
	var content io.Reader
	var size int64
	switch {
	case kind == fs.ModeSymlink && want.mode == gitLink:
		to, err := os.Readlink(path)
		if err != nil {
			return err
		}
		content, size = strings.NewReader(to), int64(len(to))
	case kind.IsRegular() && (want.mode == gitFile || want.mode == gitProgram):
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return err
		}
		content, size = f, info.Size()
	default:
		return fmt.Errorf("%s is no such file as was committed", name)
	}
	var h hash.Hash = sha1.New() //nolint:gosec // as above
	if len(want.sum) == 2*sha256.Size {
		h = sha256.New()
	}
	fmt.Fprintf(h, "blob %d\x00", size)
	if _, err := io.Copy(h, content); err != nil {
		return err
	}
	if sum, err := hex.DecodeString(want.sum); err != nil || !bytes.Equal(h.Sum(nil), sum) {
		return fmt.Errorf("%s differs from what was committed", name)
	}
	return nil
}

package history

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
)

// Specification: the modes that a tree's entry may have (git's tree format).
const (
	modeFile    = "100644"
	modeProgram = "100755"
	modeLink    = "120000"
)

// contents digests trees, and remembers the files that it has digested.
type contents struct {
	repository *Repository
	objects    *objects
	files      map[string][sha256.Size]byte // by object id
}

// digest is the SHA-256, in hex, of a listing of all that a commit's tree holds: for each file, in the order of the paths' bytes, its mode, the
// SHA-256 of its content in hex, and its path, with a space between and a zero byte after.
func (c *contents) digest(ctx context.Context, commit *commit) (string, error) {
	list, err := c.repository.run(ctx, nil, maxTree, "ls-tree", "-r", "-z", "--full-tree", commit.tree)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	for entry := range bytes.SplitSeq(bytes.TrimSuffix(list, []byte{0}), []byte{0}) {
		if len(entry) == 0 {
			continue // an empty tree
		}
		about, path, ok := strings.Cut(string(entry), "\t")
		parts := strings.Fields(about) // mode, type, id
		if !ok || len(parts) != 3 || path == "" {
			return "", fmt.Errorf("listing %s: %q", commit.tree, entry)
		}
		switch parts[0] {
		case modeFile, modeProgram, modeLink:
		default:
			return "", refuse(NotAFile, commit.id, "%q has mode %s: a submodule's content is not the commit's", path, parts[0])
		}
		sum, err := c.file(parts[2])
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %x %s\x00", parts[0], sum, path)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func (c *contents) file(id string) ([sha256.Size]byte, error) {
	if sum, ok := c.files[id]; ok {
		return sum, nil
	}
	var sum [sha256.Size]byte
	err := c.objects.read(id, "blob", func(content io.Reader, _ int64) error {
		h := sha256.New()
		if _, err := io.Copy(h, content); err != nil {
			return err
		}
		h.Sum(sum[:0])
		return nil
	})
	if err == nil {
		c.files[id] = sum
	}
	return sum, err
}

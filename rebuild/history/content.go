package history

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
)

// contents digests trees, and remembers the files that it has digested.
type contents struct {
	trees
	files map[string][sha256.Size]byte // by object id
}

func newContents(o *objects) contents {
	return contents{trees{o, map[string][]entry{}}, map[string][sha256.Size]byte{}}
}

// digest is the SHA-256, in hex, of a listing of all that a commit's tree holds: for each file, in the order of the paths' bytes, its mode, the
// SHA-256 of its content in hex, and its path, with a space between and a zero byte after.
func (c *contents) digest(commit *commit) (string, error) {
	list, err := c.list(commit.tree)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	for _, e := range list {
		sum, err := c.file(e.id)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %x %s\x00", e.mode, sum, e.path)
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

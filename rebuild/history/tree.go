package history

import (
	"bytes"
	"context"
	"fmt"
	"strings"
)

// Specification: the modes that a tree's entry may have (git's tree format).
const (
	modeFile    = "100644"
	modeProgram = "100755"
	modeLink    = "120000"
)

// entry is what stands at a path of a tree.
type entry struct{ mode, kind, id, path string }

// tree lists all that the tree of a commit, or of what else leads to one, has, in the order of the paths' bytes.
func (r *Repository) tree(ctx context.Context, of string) ([]entry, error) {
	list, err := r.run(ctx, nil, maxTree, "ls-tree", "-r", "-z", "--full-tree", of)
	if err != nil {
		return nil, err
	}
	var all []entry
	for line := range bytes.SplitSeq(bytes.TrimSuffix(list, []byte{0}), []byte{0}) {
		if len(line) == 0 {
			continue // an empty tree
		}
		about, path, ok := strings.Cut(string(line), "\t")
		parts := strings.Fields(about)
		if !ok || len(parts) != 3 || path == "" {
			return nil, fmt.Errorf("listing %s: %q", of, line)
		}
		all = append(all, entry{parts[0], parts[1], parts[2], path})
	}
	return all, nil
}

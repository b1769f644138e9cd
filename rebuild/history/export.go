package history

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// Export writes the files of a commit, and nothing else, into an empty directory: what git ignores, and what its filters and attributes
// would make of a file, is not there. A tree with a link is refused: what stands where a link leads to is nothing that anybody approved.
func (r *Repository) Export(ctx context.Context, commit, dir string) (err error) {
	if !isID(commit) {
		return fmt.Errorf("exporting %q: no id of a commit", commit)
	}
	root, err := os.OpenRoot(dir) // no path of a tree leads out of it
	if err != nil {
		return fmt.Errorf("exporting %s: %w", short(commit), err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	o, err := r.objects(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.close()) }()
	c := newContents(o)
	v := verifier{contents: c}
	about, err := v.read(commit)
	if err != nil {
		return err
	}
	list, err := c.list(about.tree)
	if err != nil {
		return err
	}
	for _, e := range list {
		if err := o.export(root, e); err != nil {
			return fmt.Errorf("exporting %s of %s: %w", e.path, short(commit), err)
		}
	}
	return nil
}

// export writes one file where there was none.
func (o *objects) export(root *os.Root, e entry) error {
	if i := strings.LastIndexByte(e.path, '/'); i >= 0 {
		if err := root.MkdirAll(e.path[:i], 0o755); err != nil {
			return err
		}
	}
	permissions := os.FileMode(0o644)
	switch e.mode {
	case modeFile:
	case modeProgram:
		permissions = 0o755
	case modeLink:
		return refuse(NotAFile, "", "it is a link")
	default:
		return fmt.Errorf("mode %s", e.mode)
	}
	f, err := root.OpenFile(e.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, permissions)
	if err != nil {
		return err
	}
	err = o.read(e.id, "blob", func(content io.Reader, _ int64) error {
		_, err := io.Copy(f, content)
		return err
	})
	return errors.Join(err, f.Close())
}

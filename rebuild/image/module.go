package image

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"golang.org/x/mod/modfile"

	"mayfly/internal/durable"
	"mayfly/internal/hint"
)

// maxModuleFile bounds go.mod, in bytes.
const maxModuleFile = 1 << 20

// checkModule asks for a module that is all in its directory: without a go.mod the go command would take one further up, and a replacement by a
// directory is built from whatever lies there.
func checkModule(dir string) error {
	path := filepath.Join(dir, "go.mod")
	data, err := durable.ReadFile(path, maxModuleFile)
	if errors.Is(err, fs.ErrNotExist) {
		return hint.New(fmt.Errorf("%s: no such file", path), "give the directory of mayfly's source tree")
	}
	if err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	f, err := modfile.Parse(path, data, nil)
	if err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	for _, r := range f.Replace {
		if r.New.Version == "" {
			return hint.New(fmt.Errorf("%s:%d: %s is replaced by a directory, %s", path, r.Syntax.Start.Line, r.Old.Path, r.New.Path),
				"build from what the source tree and go.sum name alone")
		}
	}
	return nil
}

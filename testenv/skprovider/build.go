package skprovider

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"mayfly/testenv/cgobuild"
)

// Library is the file's name that Build makes.
const Library = "software-security-key-for-tests.so"

// Tag is the build tag of the library's C part.
const Tag = "skprovider"

const librarySource = "mayfly/testenv/skprovider/cmd/libskprovider"

// Build builds the library into a directory and returns its path, for ssh-keygen -w, ssh -o SecurityKeyProvider= and ssh-add -S. It
// takes cgobuild.Needs, and a working directory inside the module.
func Build(ctx context.Context, dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("building the software security key: %w", err)
	}
	path := filepath.Join(dir, Library)
	if err := cgobuild.Library(ctx, "", path, librarySource, Tag); err != nil {
		return "", err
	}
	// The header is for C programs that link it; nobody does.
	if err := os.Remove(strings.TrimSuffix(path, ".so") + ".h"); err != nil {
		return "", fmt.Errorf("building the software security key: %w", err)
	}
	return path, nil
}

package skprovider

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"mayfly/internal/hint"
	"mayfly/testenv/cgobuild"
	"mayfly/testenv/debian"
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
	if missing := debian.Missing(cgobuild.Needs(Tag)); len(missing) > 0 {
		return "", hint.New(fmt.Errorf("building the software security key: not found: %s", debian.Describe(missing)), "%s", debian.Line(missing))
	}
	path := filepath.Join(dir, Library)
	cmd := exec.CommandContext(ctx, "go", "build", "-buildmode=c-shared", "-tags="+Tag, "-trimpath", "-buildvcs=false", "-o", path, librarySource)
	cmd.Env = cgobuild.Environ(nil)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the software security key: %w: %s", err, strings.TrimSpace(string(out)))
	}
	// The header is for C programs that link it; nobody does.
	if err := os.Remove(strings.TrimSuffix(path, ".so") + ".h"); err != nil {
		return "", fmt.Errorf("building the software security key: %w", err)
	}
	return path, nil
}

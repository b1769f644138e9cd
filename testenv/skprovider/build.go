package skprovider

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"mayfly/internal/hint"
)

// Library is the file's name that Build makes.
const Library = "software-security-key-for-tests.so"

const librarySource = "mayfly/testenv/skprovider/cmd/libskprovider"

// Build builds the library into a directory and returns its path, for ssh-keygen -w, ssh -o SecurityKeyProvider= and ssh-add -S. It
// takes a C compiler, and a working directory inside the module.
func Build(ctx context.Context, dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("building the software security key: %w", err)
	}
	path := filepath.Join(dir, Library)
	cmd := exec.CommandContext(ctx, "go", "build", "-buildmode=c-shared", "-tags=skprovider", "-trimpath", "-buildvcs=false", "-o", path, librarySource)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", hint.New(fmt.Errorf("building the software security key: %w: %s", err, strings.TrimSpace(string(out))), "install gcc and libc6-dev")
	}
	// The header is for C programs that link it; nobody does.
	if err := os.Remove(strings.TrimSuffix(path, ".so") + ".h"); err != nil {
		return "", fmt.Errorf("building the software security key: %w", err)
	}
	return path, nil
}

package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
)

// ourPrograms are the packages that an image's own programs are built from, by the program's name.
var ourPrograms = map[string]string{
	"mayfly-stub": "./rebuild/cmd/mayfly-stub",
	"mayfly-init": "./rebuild/cmd/mayfly-init",
	"tunnel":      "./tunnel/cmd/tunnel",
	"bastion":     "./bastion/cmd/bastion",
}

// Programs builds the image's own programs from the module in moduleDir into outDir, and returns their paths by name. The same
// sources and toolchain give the same bytes, whatever the directory, the environment and Go's settings. Nothing is fetched: modules have to be
// there, each as go.sum says.
func Programs(ctx context.Context, moduleDir, outDir string) (map[string]string, error) {
	return buildPrograms(ctx, moduleDir, outDir, ourPrograms)
}

func buildPrograms(ctx context.Context, moduleDir, outDir string, packages map[string]string) (map[string]string, error) {
	outDir, err := filepath.Abs(outDir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(outDir, 0o755); err != nil {
		return nil, err
	}
	out, paths := map[string]string{}, slices.Sorted(maps.Values(packages))
	for name := range packages {
		out[name] = filepath.Join(outDir, name)
	}
	// Modules are looked at while all programs are built at once: what was built counts only if both end well.
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return checkModules(ctx, moduleDir, paths) })
	group.Go(func() error {
		if _, err := os.Lstat(filepath.Join(moduleDir, "go.mod")); err != nil {
			return nil // checkModules says so
		}
		args := []string{"build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", outDir + "/"}
		if _, err := runGo(ctx, moduleDir, append(args, paths...)...); err != nil {
			return fmt.Errorf("building %s: %w", strings.Join(slices.Sorted(maps.Keys(packages)), ", "), err)
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		return nil, errors.Join(err, removePrograms(out))
	}
	return out, nil
}

// removePrograms takes away what must not be used.
func removePrograms(programs map[string]string) error {
	var errs []error
	for _, path := range programs {
		if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// keptForGo is all that the build takes of the environment: where things lie and how many processors it may use, nothing that says what is built.
// GOCACHE is shared with the operator's other builds, since compiling everything anew takes minutes: what lies in it is named by the hash
// of all that went into it (sources, flags, compiler), so that another source or flag finds nothing there. Who can write into it otherwise writes as
// the operator, and could replace the compiler.
var keptForGo = []string{"PATH", "HOME", "XDG_CACHE_HOME", "TMPDIR", "GOCACHE", "GOMODCACHE", "GOPATH", "GOMAXPROCS"}

// goSettings are the same for every build. An empty variable would be no setting: Go then takes what `go env -w` wrote, hence GOENV=off.
// The index of the module cache (goindex) is left out: it is named by a directory, not by what is in it.
var goSettings = []string{"GOENV=off", "GOFLAGS=-mod=readonly", "GOPROXY=off", "GOTOOLCHAIN=local", "GOWORK=off", "GODEBUG=goindex=0",
	"CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOAMD64=v1", "GOFIPS140=off", "LC_ALL=C"}

func goEnvironment() []string {
	var env []string
	for _, name := range keptForGo {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return append(env, goSettings...)
}

// runGo runs go in moduleDir, and returns what it wrote.
func runGo(ctx context.Context, moduleDir string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir, cmd.Env = moduleDir, goEnvironment()
	var stderr strings.Builder
	cmd.Stderr = &stderr
	text, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go %s: %w\n%s", args[0], err, strings.TrimSpace(stderr.String()))
	}
	return text, nil
}

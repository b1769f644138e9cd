package image

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// ourPrograms are the packages that an image's own programs are built from, by the program's name.
var ourPrograms = map[string]string{
	"mayfly-stub": "./rebuild/cmd/mayfly-stub",
	"mayfly-init": "./rebuild/cmd/mayfly-init",
	"tunnel":      "./tunnel/cmd/tunnel",
	"bastion":     "./bastion/cmd/bastion",
}

// Programs builds the image's own programs from the module in moduleDir into outDir, and returns their paths by name. The same
// sources and toolchain give the same bytes, whatever the directory.
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
	out := map[string]string{}
	for name, pkg := range packages {
		out[name] = filepath.Join(outDir, name)
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", out[name], pkg)
		cmd.Dir = moduleDir
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOAMD64=v1", "GOFLAGS=", "GOEXPERIMENT=",
			"GODEBUG=", "GOWORK=off", "GOTOOLCHAIN=local", "GOFIPS140=off")
		if text, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("building %s: %w\n%s", name, err, strings.TrimSpace(string(text)))
		}
	}
	return out, nil
}

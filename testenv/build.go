package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"mayfly/testenv/cgobuild"
)

// programs are what the environment runs, by package.
var programs = map[string]string{
	"fleetctl":     "./fleetctl",
	"bastion":      "./bastion/cmd/bastion",
	"tunnel":       "./tunnel/cmd/tunnel",
	"testenv":      "./testenv",
	"wireguard-go": "golang.zx2c4.com/wireguard", // the stock client's, where the kernel has no WireGuard
}

// cardPrograms are those that reach smart cards; beside Go they take cgobuild.Needs, and so are built once those are installed.
var cardPrograms = map[string]string{
	"bastion-agent": "./bastion/cmd/bastion-agent",
}

// buildWithCards builds the programs that reach smart cards into bin, where they then belong to the user.
func (e *environment) buildWithCards(ctx context.Context, talk io.Writer) error {
	began := time.Now()
	if err := os.MkdirAll(e.path("bin"), 0o755); err != nil {
		return fmt.Errorf("making the programs' directory: %w", err)
	}
	for name, pkg := range cardPrograms {
		if err := cgobuild.Build(ctx, e.module, e.bin(name), pkg, cgobuild.PCSC); err != nil {
			return err
		}
	}
	fmt.Fprintf(talk, "testenv: built the programs for smart cards in %s\n", took(began))
	return e.owner.give(e.path("bin"))
}

// build builds the programs into bin, unless a user's process did already.
func (e *environment) build(ctx context.Context, talk io.Writer) error {
	if os.Getenv(envCaller) != "" {
		return nil
	}
	began := time.Now()
	fmt.Fprintf(talk, "testenv: building the programs …\n")
	if err := os.MkdirAll(e.path("bin"), 0o755); err != nil {
		return fmt.Errorf("making the programs' directory: %w", err)
	}
	if err := e.bringModules(ctx); err != nil {
		return err
	}
	for name, pkg := range programs {
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-o", e.bin(name), pkg)
		cmd.Dir = e.module
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if _, err := outputOf(cmd, nil); err != nil {
			return fmt.Errorf("building %s: %w", name, err)
		}
	}
	fmt.Fprintf(talk, "testenv: built the programs in %s\n", took(began))
	return nil
}

// imageOnly are the packages that the image has beside programs: `fleetctl image build` builds them, and fetches nothing.
const imageOnly = "./rebuild/cmd/..."

// bringModules has Go fetch, as the user's settings say, the modules of programs that are in the image only.
func (e *environment) bringModules(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "go", "list", "-deps", imageOnly)
	cmd.Dir = e.module
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if _, err := outputOf(cmd, nil); err != nil {
		return fmt.Errorf("fetching the modules of the image's programs: %w", err)
	}
	return nil
}

func goEnv(ctx context.Context, name string) (string, error) {
	out, err := outputOf(exec.CommandContext(ctx, "go", "env", name), nil)
	if err != nil {
		return "", fmt.Errorf("asking go for %s: %w", name, err)
	}
	return strings.TrimSpace(out), nil
}

// took is how long ago something began, for a person.
func took(began time.Time) string {
	return fmt.Sprintf("%.1f s", time.Since(began).Seconds())
}

// Package cgobuild builds the module's programs that need C, which a plain build leaves out: each such file has a build tag. It
// installs nothing; Needs says what there has to be.
package cgobuild

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	"mayfly/internal/hint"
	"mayfly/testenv/debian"
)

// PCSC is the tag of files that reach smart cards through libpcsclite.
const PCSC = "pcsc"

// compiler is what every build with C takes.
var compiler = []debian.Need{
	{Name: "gcc", Package: "gcc"},
	{Name: "/usr/include/stdlib.h", Package: "libc6-dev"},
}

// libraries are what the files of a tag take beside it.
var libraries = map[string][]debian.Need{
	PCSC: {
		{Name: "pkg-config", Package: "pkg-config"},
		{Name: "/usr/include/PCSC/winscard.h", Package: "libpcsclite-dev"},
	},
}

// Needs are what building with the tags takes beside Go.
func Needs(tags ...string) []debian.Need {
	needs := slices.Clone(compiler)
	for _, tag := range tags {
		needs = append(needs, libraries[tag]...)
	}
	return needs
}

// Environ is an environment, or this process's own where it is nil, in which the go command builds with C.
func Environ(env []string) []string {
	if env == nil {
		env = os.Environ()
	}
	return append(slices.Clone(env), "CGO_ENABLED=1")
}

// Build builds a package of the module into a file, with the tags.
func Build(ctx context.Context, module, out, pkg string, tags ...string) error {
	return build(ctx, module, []string{"-o", out, pkg}, tags)
}

// Library builds a package of the module into a shared library for programs in C.
func Library(ctx context.Context, module, out, pkg string, tags ...string) error {
	return build(ctx, module, []string{"-buildmode=c-shared", "-o", out, pkg}, tags)
}

func build(ctx context.Context, module string, what, tags []string) error {
	pkg := what[len(what)-1]
	if missing := debian.Missing(Needs(tags...)); len(missing) > 0 {
		return hint.New(fmt.Errorf("building %s with tags %q: not found: %s", pkg, tags, debian.Describe(missing)), "%s", debian.Line(missing))
	}
	cmd := exec.CommandContext(ctx, "go", append([]string{"build", "-trimpath", "-buildvcs=false", "-tags=" + strings.Join(tags, ",")}, what...)...)
	cmd.Dir, cmd.Env = module, Environ(nil)
	said, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("building %s with tags %q: %w: %s", pkg, tags, err, strings.TrimSpace(string(said)))
	}
	return nil
}

// Packages lists the module's packages that have files of the tag: those that are not what they are without it.
func Packages(ctx context.Context, module string, env []string, tag string) ([]string, error) {
	if env == nil {
		env = os.Environ()
	}
	list := func(args ...string) (map[string]string, error) {
		cmd := exec.CommandContext(ctx, "go", append([]string{"list", "-f", "{{.ImportPath}} {{.GoFiles}}{{.CgoFiles}}{{.TestGoFiles}}{{.XTestGoFiles}}"}, args...)...)
		cmd.Dir, cmd.Env = module, Environ(env)
		out, err := cmd.Output()
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
		}
		if err != nil {
			return nil, fmt.Errorf("listing packages: %w", err)
		}
		files := map[string]string{}
		for line := range strings.Lines(string(out)) {
			name, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
			files[name] = rest
		}
		return files, nil
	}
	without, err := list("./...")
	if err != nil {
		return nil, err
	}
	with, err := list("-tags="+tag, "./...")
	if err != nil {
		return nil, err
	}
	var packages []string
	for name, files := range with {
		if without[name] != files {
			packages = append(packages, name)
		}
	}
	slices.Sort(packages)
	return packages, nil
}

package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"mayfly/testenv/cgobuild"
	"mayfly/testenv/debian"
)

// TestBuildWithCards builds the engineer's agent as engineers have it: with cards, and so with C.
func TestBuildWithCards(t *testing.T) {
	if missing := debian.Missing(cgobuild.Needs(cgobuild.PCSC)); len(missing) > 0 {
		t.Skipf("needs %s", debian.Describe(missing))
	}
	e, err := newEnvironment()
	if err != nil {
		t.Fatal(err)
	}
	e.dir = t.TempDir()
	if err := e.buildWithCards(t.Context(), io.Discard); err != nil {
		t.Fatal(err)
	}
	for name := range cardPrograms {
		built, err := exec.CommandContext(t.Context(), "go", "version", "-m", e.bin(name)).Output()
		if err != nil || !strings.Contains(string(built), "CGO_ENABLED=1") || !strings.Contains(string(built), "-tags="+cgobuild.PCSC) {
			t.Errorf("%s: got %s, %v, want cgo and the tag", name, built, err)
		}
		if said, err := exec.CommandContext(t.Context(), e.bin(name), "--help").CombinedOutput(); err != nil {
			t.Errorf("%s --help: %v: %s", name, err, said)
		}
	}
}

// TestBringModules: on a machine that has no module yet, those of the image's own programs are there once the programs are built, so that
// `fleetctl image build` has nothing to fetch.
func TestBringModules(t *testing.T) {
	e, err := newEnvironment()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"GOMODCACHE", "GOCACHE"} {
		value, err := goEnv(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		t.Setenv(name, value)
	}
	t.Setenv("GOPROXY", "file://"+filepath.Join(os.Getenv("GOMODCACHE"), "cache", "download"))
	t.Setenv("GOMODCACHE", filepath.Join(t.TempDir(), "mod"))
	t.Setenv("GOFLAGS", "-modcacherw")
	list := func() error {
		cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", imageOnly)
		cmd.Dir, cmd.Env = e.module, append(os.Environ(), "GOPROXY=off", "CGO_ENABLED=0")
		_, err := outputOf(cmd, nil)
		return err
	}
	if list() == nil {
		t.Fatal("modules are there before anything brought them")
	}
	if err := e.bringModules(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := list(); err != nil {
		t.Error(err)
	}
}

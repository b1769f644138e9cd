package main

import (
	"io"
	"os/exec"
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

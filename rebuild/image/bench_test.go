package image

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// BenchmarkBuild makes the default image from what the store keeps, with one small program in place of ours.
func BenchmarkBuild(b *testing.B) {
	if _, err := exec.LookPath("apt-get"); err != nil {
		b.Skip("SKIPPED: no apt-get on this host")
	}
	dir, store := b.TempDir(), filepath.Join(b.TempDir(), "packages")
	program := filepath.Join(dir, "program")
	build := exec.CommandContext(b.Context(), "go", "build", "-o", program, "./testdata/buildimage")
	build.Env = append(build.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, text)
	}
	lock, err := Lock(b.Context(), Default(), store)
	if err != nil {
		b.Fatal(err)
	}
	in := Inputs{Lock: lock, Store: store, Programs: map[string]string{"mayfly-stub": program, "mayfly-init": program, "tunnel": program, "bastion": program}}
	for b.Loop() {
		if _, err := Build(b.Context(), in, filepath.Join(dir, "out")); err != nil {
			b.Fatal(err)
		}
	}
}

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestFuzzTargets sees that each listed target is there, has seeds, and stands in the documentation.
func TestFuzzTargets(t *testing.T) {
	page := read(t, "docs/testing.md")
	for _, f := range fuzzTargets {
		files, err := filepath.Glob(filepath.Join("..", f.pkg, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			_, body, ok := strings.Cut(string(data), "func "+f.name+"(f *testing.F) {")
			if !ok {
				continue
			}
			if body, _, ok = strings.Cut(body, "f.Fuzz("); ok && strings.Contains(body, "f.Add(") {
				found = true
			}
		}
		if !found {
			t.Errorf("%s: %s has no target %s with seeds", f.input, f.pkg, f.name)
		}
		if line := "| " + f.input + " | `" + strings.TrimPrefix(f.pkg, "./") + "." + f.name + "` |"; !strings.Contains(page, line) {
			t.Errorf("docs/testing.md lacks %s", line)
		}
	}
}

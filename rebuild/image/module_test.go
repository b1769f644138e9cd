package image

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCheckModule: what would be built is in the tree, or go.sum names it.
func TestCheckModule(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"good":                   {"module x\n\ngo 1.26.0\n\nrequire example.org/y v1.0.0\n", ""},
		"by another version":     {"module x\n\nrequire example.org/y v1.0.0\n\nreplace example.org/y => example.org/z v1.2.3\n", ""},
		"by a directory":         {"module x\n\nreplace example.org/y => ../y\n", "go.mod:3: example.org/y is replaced by a directory, ../y"},
		"by a directory in here": {"module x\n\nreplace (\n\texample.org/y v1.0.0 => ./y\n)\n", "replaced by a directory"},
		"not one":                {"modul x\n", "go.mod"},
		"none":                   {"", "no such file"},
	} {
		dir := t.TempDir()
		if tt.text != "" {
			if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		err := checkModule(dir)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
	if err := checkModule("../.."); err != nil {
		t.Errorf("mayfly's own: %v", err)
	}
}

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mayfly/internal/command"
	"mayfly/rebuild/image"
)

// TestCheckAge: nothing goes back unasked, and each has its reason.
func TestCheckAge(t *testing.T) {
	for _, tt := range []struct {
		change image.Change
		want   string
	}{
		{image.Change{Input: "unbound", Old: "2", New: "1", What: image.Older}, packageOlder + ": unbound 1 is older than 2"},
		{image.Change{Input: "kernel", Old: "6.1.999-1", New: "6.1.170-1", What: image.Older}, packageOlder + ": kernel 6.1.170-1"},
		{image.Change{Input: "go", Old: "go1.99.1", New: "go1.26.8", What: image.Older}, toolchainOlder + ": go go1.26.8"},
		{image.Change{Input: "epoch", Old: "2026-12-16T10:17:40Z", New: "2026-11-16T10:17:40Z", What: image.Older}, epochOlder + ": epoch 2026-11-16"},
		{image.Change{Input: "kernel", Old: "1", New: "2", What: image.Newer}, ""},
		{image.Change{Input: "unbound", Old: "1", What: image.Removed}, ""},
	} {
		changes := []image.Change{{Input: "zlib1g", Old: "1", New: "2", What: image.Newer}, tt.change}
		err := checkAge(changes, false)
		if tt.want == "" && err != nil || tt.want != "" && (command.ExitCode(err) != command.Refused || !strings.HasPrefix(err.Error(), tt.want)) {
			t.Errorf("%+v: got %v, want %q", tt.change, err, tt.want)
		}
		if err := checkAge(changes, true); err != nil {
			t.Errorf("%+v: allowed, and got %v", tt.change, err)
		}
	}
}

// TestNewestReleaseIgnores: names that are no release's directory steer nothing.
func TestNewestReleaseIgnores(t *testing.T) {
	d := state(t.TempDir())
	for _, name := range []string{"007", "18446744073709551615", "x"} {
		if err := os.MkdirAll(filepath.Join(d.releases(), name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if version, made, err := d.newestRelease([]byte("lock")); version != 0 || made || err != nil {
		t.Errorf("got %d, %t, %v", version, made, err)
	}
}

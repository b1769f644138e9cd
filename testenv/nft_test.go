package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestNFTLoads has nft itself load what "bastion nft" prints (the golden files of package bastion), also over what it has loaded before.
func TestNFTLoads(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: a network namespace of its own")
	}
	files, err := filepath.Glob("../bastion/testdata/*.nft")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		script := `nft -c -f "$0" && nft -f "$0" && nft list ruleset >"$1" && nft -f "$0" && nft list ruleset | cmp - "$1"`
		out, err := exec.CommandContext(t.Context(), "unshare", "-n", "sh", "-c", script, file, filepath.Join(t.TempDir(), "first")).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v: %s", file, err, out)
		}
	}
}

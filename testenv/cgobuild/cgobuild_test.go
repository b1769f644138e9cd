package cgobuild

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "../.."

func TestPackages(t *testing.T) {
	got, err := Packages(t.Context(), module, nil, PCSC)
	if err != nil || !slices.Contains(got, "mayfly/bastion/cmd/bastion-agent") || slices.Contains(got, "mayfly/bastion") {
		t.Errorf("got %q, %v, want bastion-agent and no package without the tag", got, err)
	}
	if got, err := Packages(t.Context(), module, nil, "nosuchtag"); err != nil || len(got) != 0 {
		t.Errorf("a tag that no file has: got %q, %v", got, err)
	}
}

func TestBuildSaysWhatIsWrong(t *testing.T) {
	err := Build(t.Context(), module, filepath.Join(t.TempDir(), "x"), "./no/such/package")
	if err == nil || !strings.Contains(err.Error(), "./no/such/package") {
		t.Errorf("got %v, want the package named", err)
	}
}

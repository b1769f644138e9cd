package image

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

func TestChanges(t *testing.T) {
	old, next := lockFile(), lockFile()
	if got := Changes(old, next); len(got) != 0 {
		t.Errorf("the same lock file: %+v", got)
	}
	hash := strings.Repeat("cd", 32)
	base := old.Packages[0]
	named := func(name, version, sum string) Package {
		p := base
		p.Name, p.Version, p.SHA256 = name, version, sum
		return p
	}
	old.Packages = []Package{named("a", "1.9-1", hash), named("b", "2", hash), named("c", "3", hash), named("d", "4", hash), named("e", "5", hash)}
	next.Packages = []Package{named("a", "1.10-1", hash), named("b", "1:1", hash), named("c", "2", hash), named("d", "4", strings.Repeat("ef", 32)), named("f", "6", hash)}
	next.Go = "go1.26.9"
	want := []Change{{"go", "go1.26.8", "go1.26.9", "changed"}, {"a", "1.9-1", "1.10-1", Newer}, {"b", "2", "1:1", Newer}, {"c", "3", "2", Older},
		{"d", "4", "4", Rebuilt}, {"e", "5", "", Removed}, {"f", "", "6", Added}}
	if got := Changes(old, next); !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// versions in rising order.
var versions = []string{"0~~", "0~", "0", "0+b1", "0.1", "1~rc1-1", "1-1", "1-1+b1", "1-1+deb12u1", "1-1+deb12u9", "1-1+deb12u14", "1-2", "1a-1", "1.2.3-4", "1.02.10-1", "2.36-9+deb12u14", "3.0~beta", "3.0", "1:0.1", "1:1.35.0-4+deb12u1+b1", "2:0"}

func TestCompareVersions(t *testing.T) {
	for i, a := range versions {
		for j, b := range versions {
			got := compareVersions(a, b)
			if got < 0 != (i < j) || got > 0 != (i > j) {
				t.Errorf("%s and %s: %d", a, b, got)
			}
		}
	}
	if compareVersions("1.0-0", "1.00-0") != 0 || compareVersions("0:1", "1") != 0 {
		t.Error("zeros count")
	}
}

// dpkg says the same.
func TestPeerVersions(t *testing.T) {
	if _, err := exec.LookPath("dpkg"); err != nil {
		t.Skip("SKIPPED: no dpkg on this host")
	}
	for i := range versions[1:] {
		if err := exec.CommandContext(t.Context(), "dpkg", "--compare-versions", versions[i], "lt", versions[i+1]).Run(); err != nil {
			t.Errorf("dpkg: %s is not older than %s: %v", versions[i], versions[i+1], err)
		}
	}
}

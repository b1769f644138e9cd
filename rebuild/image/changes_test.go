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
	want := []Change{{"go", "go1.26.8", "go1.26.9", Newer}, {"a", "1.9-1", "1.10-1", Newer}, {"b", "2", "1:1", Newer}, {"c", "3", "2", Older},
		{"d", "4", "4", Rebuilt}, {"e", "5", "", Removed}, {"f", "", "6", Added}, {"glibc", "5", "6", Newer}}
	if got := Changes(old, next); !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestChangesBack: a kernel has another name with each version, and goes back all the same; so do Go, and the epoch.
func TestChangesBack(t *testing.T) {
	base := lockFile().Packages[0]
	with := func(packages ...string) LockFile {
		l := lockFile()
		l.Packages = nil
		for _, line := range packages {
			f := strings.Fields(line)
			p := base
			p.Name, p.Version, p.Source = f[0], f[1], f[2]
			l.Packages = append(l.Packages, p)
		}
		return l
	}
	goBack, epochBack, epochOn := lockFile(), lockFile(), lockFile()
	goBack.Go = "go1.26.7"
	epochBack.Epoch--
	epochOn.Epoch++
	tenth := lockFile()
	tenth.Go = "go1.26.10"
	for _, tt := range []struct {
		name      string
		old, next LockFile
		want      string // input and what, "" for none but additions and removals
	}{
		{"an older kernel", with("linux-image-6.1.0-99-cloud-amd64 6.1.999-1 linux-signed-amd64"), with("linux-image-6.1.0-56-cloud-amd64 6.1.170-1 linux-signed-amd64"), "kernel older"},
		{"an older kernel, unsigned", with("linux-image-6.1.0-99-cloud-amd64 6.1.999-1 linux-signed-amd64"), with("linux-image-6.1.0-56-cloud-amd64-unsigned 6.1.170-1 linux"), "kernel older"},
		{"a newer kernel", with("linux-image-6.1.0-9-cloud-amd64 6.1.27-1 linux-signed-amd64"), with("linux-image-6.1.0-56-cloud-amd64 6.1.170-1 linux-signed-amd64"), "kernel newer"},
		{"an older library of another name", with("libevent-2.2-1 2.2.1-1 libevent"), with("libevent-2.1-7 2.1.12-8 libevent"), "libevent older"},
		{"another source", with("libevent-2.2-1 2.2.1-1 libevent"), with("libuv1 1.44.2-1 libuv1"), ""},
		{"a package less", with("a 2 s", "b 2 s"), with("a 2 s"), ""},
		{"an older Go", lockFile(), goBack, "go older"},
		{"a tenth Go", lockFile(), tenth, "go newer"},
		{"an older epoch", lockFile(), epochBack, "epoch older"},
		{"a newer epoch", lockFile(), epochOn, ""},
	} {
		var got []string
		for _, c := range Changes(tt.old, tt.next) {
			if c.What != Added && c.What != Removed {
				got = append(got, c.Input+" "+c.What)
			}
		}
		if strings.Join(got, ", ") != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
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

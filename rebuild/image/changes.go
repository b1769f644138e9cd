package image

import (
	"cmp"
	goversion "go/version"
	"slices"
	"strings"
	"time"
)

// What became of a package, as `fleetctl image lock --update` says it.
const (
	Added   = "added"
	Removed = "removed"
	Newer   = "newer"
	Older   = "older"
	Rebuilt = "rebuilt" // the same version, other bytes
)

// kernelInput is the name under which Changes compares kernels: a kernel has its version in the package's name.
const kernelInput = "kernel"

// Change is what one input became. Beside packages there are "go" (the toolchain), "epoch" where it fell, "image.toml" (its SHA-256), "profile",
// and "kernel" or a source package where packages with a version in their names took each other's place.
type Change struct {
	Input string `json:"input"`
	Old   string `json:"old,omitempty"`
	New   string `json:"new,omitempty"`
	What  string `json:"what"`
}

// Changes compares two lock files' inputs, packages by name.
func Changes(old, next LockFile) []Change {
	out := []Change{}
	if old.Go != next.Go {
		out = append(out, Change{"go", old.Go, next.Go, direction(goversion.Compare(old.Go, next.Go))})
	}
	if old.Epoch > next.Epoch {
		out = append(out, Change{"epoch", time.Unix(old.Epoch, 0).UTC().Format(time.RFC3339), time.Unix(next.Epoch, 0).UTC().Format(time.RFC3339), Older})
	}
	for _, f := range []struct{ input, old, next string }{{"image.toml", old.Spec, next.Spec}, {"profile", old.Profile, next.Profile}} {
		if f.old != f.next {
			out = append(out, Change{f.input, f.old, f.next, "changed"})
		}
	}
	before := map[string]Package{}
	for _, p := range old.Packages {
		before[p.Name] = p
	}
	var packages []Change
	for _, p := range next.Packages {
		was, ok := before[p.Name]
		delete(before, p.Name)
		switch {
		case !ok:
			packages = append(packages, Change{p.Name, "", p.Version, Added})
		case was.Version != p.Version && compareVersions(was.Version, p.Version) > 0:
			packages = append(packages, Change{p.Name, was.Version, p.Version, Older})
		case was.Version != p.Version:
			packages = append(packages, Change{p.Name, was.Version, p.Version, Newer})
		case was != p:
			packages = append(packages, Change{p.Name, was.Version, p.Version, Rebuilt})
		}
	}
	for name, p := range before {
		packages = append(packages, Change{name, p.Version, "", Removed})
	}
	packages = append(packages, renamed(old, next)...)
	slices.SortFunc(packages, func(a, b Change) int { return strings.Compare(a.Input, b.Input) })
	return append(out, packages...)
}

// direction says what became of a version by how the old one compares with the new.
func direction(c int) string {
	if c > 0 {
		return Older
	}
	return Newer
}

// renamed compares what is only in one lock file with what is only in the other, by source package, and all kernels with each other: their
// names change with their versions, so that an older one would look like another.
func renamed(old, next LockFile) []Change {
	group := func(p Package) string {
		if strings.HasPrefix(p.Name, "linux-image-") {
			return kernelInput
		}
		return p.Source
	}
	newest := func(l, other LockFile) map[string]string {
		out := map[string]string{}
		for _, p := range l.Packages {
			if slices.ContainsFunc(other.Packages, func(q Package) bool { return q.Name == p.Name }) {
				continue
			}
			if g := group(p); out[g] == "" || compareVersions(out[g], p.Version) < 0 {
				out[g] = p.Version
			}
		}
		return out
	}
	var out []Change
	now := newest(next, old)
	for g, was := range newest(old, next) {
		if is := now[g]; is != "" {
			if c := compareVersions(was, is); c != 0 {
				out = append(out, Change{g, was, is, direction(c)})
			}
		}
	}
	return out
}

// compareVersions orders Debian's versions (Debian policy, section 5.6.12).
func compareVersions(a, b string) int {
	epochA, upstreamA, revisionA := splitVersion(a)
	epochB, upstreamB, revisionB := splitVersion(b)
	return cmp.Or(compareNumbers(epochA, epochB), compareParts(upstreamA, upstreamB), compareParts(revisionA, revisionB))
}

func splitVersion(v string) (epoch, upstream, revision string) {
	if e, rest, ok := strings.Cut(v, ":"); ok {
		epoch, v = e, rest
	}
	if i := strings.LastIndexByte(v, '-'); i >= 0 {
		return epoch, v[:i], v[i+1:]
	}
	return epoch, v, ""
}

// compareParts takes turns between what is no number and what is one.
func compareParts(a, b string) int {
	for a != "" || b != "" {
		var x, y string
		x, a = cut(a, false)
		y, b = cut(b, false)
		for i := range max(len(x), len(y)) {
			if c := cmp.Compare(weight(x, i), weight(y, i)); c != 0 {
				return c
			}
		}
		x, a = cut(a, true)
		y, b = cut(b, true)
		if c := compareNumbers(x, y); c != 0 {
			return c
		}
	}
	return 0
}

// cut takes a part's beginning of digits, or of others.
func cut(s string, digits bool) (head, rest string) {
	i := 0
	for i < len(s) && (s[i] >= '0' && s[i] <= '9') == digits {
		i++
	}
	return s[:i], s[i:]
}

// weight orders characters: a tilde before the end, letters before others.
func weight(s string, i int) int {
	switch {
	case i >= len(s):
		return 0
	case s[i] == '~':
		return -1
	case s[i] >= 'A' && s[i] <= 'Z' || s[i] >= 'a' && s[i] <= 'z':
		return int(s[i])
	}
	return int(s[i]) + 256
}

// compareNumbers compares digits of any length.
func compareNumbers(a, b string) int {
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
}

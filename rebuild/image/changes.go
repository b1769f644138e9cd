package image

import (
	"cmp"
	"slices"
	"strings"
)

// What became of a package, as `fleetctl image lock --update` says it.
const (
	Added   = "added"
	Removed = "removed"
	Newer   = "newer"
	Older   = "older"
	Rebuilt = "rebuilt" // the same version, other bytes
)

// Change is what one input became. Beside packages there are "go" (the toolchain), "image.toml" (its SHA-256) and "profile".
type Change struct {
	Input string `json:"input"`
	Old   string `json:"old,omitempty"`
	New   string `json:"new,omitempty"`
	What  string `json:"what"`
}

// Changes compares two lock files' inputs, packages by name.
func Changes(old, next LockFile) []Change {
	out := []Change{}
	for _, f := range []struct{ input, old, next string }{{"go", old.Go, next.Go}, {"image.toml", old.Spec, next.Spec}, {"profile", old.Profile, next.Profile}} {
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
	slices.SortFunc(packages, func(a, b Change) int { return strings.Compare(a.Input, b.Input) })
	return append(out, packages...)
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

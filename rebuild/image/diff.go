package image

import (
	"bytes"
	"crypto/sha256"
	"debug/pe"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"mayfly/rebuild/release"
)

// Difference is one thing in which two releases differ.
type Difference struct {
	Part    string   `json:"part"`           // a file of the release
	Path    string   `json:"path,omitempty"` // in it: a file, a package, a section
	What    string   `json:"what"`           // Added, Removed or Changed
	Old     string   `json:"old,omitempty"`  // mode, size and hash
	New     string   `json:"new,omitempty"`
	Details []string `json:"details,omitempty"`
}

// Changed is a difference of what is on both sides.
const Changed = "changed"

// diffed are the files of a release that are compared, in order. What follows from others comes last.
var diffed = []struct {
	name  string
	limit int64
	into  func(a, b []byte) ([]Difference, error) // nil: as a file
}{
	{release.LockFile, MaxLock, diffLocks},
	{release.KernelFile, release.MaxPart, nil},
	{release.StubFile, release.MaxPart, diffTrees(stubTree)},
	{release.RootFile, release.MaxPart, diffTrees(rootTree)},
	{release.UKIFile, release.MaxPart, diffSections},
	{release.SignedUKIFile, release.MaxPart, diffSections},
	{release.StatementFile, release.MaxStatement, nil},
	{release.SBOMFile, MaxSBOM, nil},
	{release.ProvenanceFile, MaxSBOM, nil},
}

// Diff explains in what two release directories differ, down to the files in stub and root. Nothing of either is believed: what
// cannot be read is said, and compared byte by byte.
func Diff(a, b string) ([]Difference, error) {
	out := []Difference{}
	found := 0
	for _, f := range diffed {
		old, err := readFile(filepath.Join(a, f.name), f.limit)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		next, err2 := readFile(filepath.Join(b, f.name), f.limit)
		if err2 != nil && !errors.Is(err2, fs.ErrNotExist) {
			return nil, err2
		}
		switch {
		case err != nil && err2 != nil:
			continue
		case err != nil:
			out = append(out, Difference{Part: f.name, What: Added, New: describe(next, "")})
		case err2 != nil:
			out = append(out, Difference{Part: f.name, What: Removed, Old: describe(old, "")})
		case !bytes.Equal(old, next):
			out = append(out, diffPart(f.name, old, next, f.into)...)
		}
		found++
	}
	if found == 0 {
		return nil, fmt.Errorf("neither %s nor %s: %w", a, b, os.ErrNotExist)
	}
	return out, nil
}

// diffPart tells that a part changed, and in what.
func diffPart(name string, old, next []byte, into func(a, b []byte) ([]Difference, error)) []Difference {
	d := Difference{Part: name, What: Changed, Old: describe(old, ""), New: describe(next, "")}
	if into == nil {
		d.Details = explain(old, next)
		return []Difference{d}
	}
	inside, err := into(old, next)
	switch {
	case err != nil:
		d.Details = append([]string{"cannot be taken apart: " + err.Error()}, differingBytes(old, next))
	case len(inside) == 0:
		d.Details = []string{"holds the same, in other bytes", differingBytes(old, next)}
	}
	for i := range inside {
		inside[i].Part = name
	}
	return append([]Difference{d}, inside...)
}

// describe is a file in short: mode, size and the beginning of its SHA-256.
func describe(data []byte, mode string) string {
	sum := sha256.Sum256(data)
	text := fmt.Sprintf("%d bytes, %s", len(data), hex.EncodeToString(sum[:8]))
	if mode != "" {
		text = mode + ", " + text
	}
	return text
}

func diffLocks(a, b []byte) ([]Difference, error) {
	old, err := ParseLock(a)
	if err != nil {
		return nil, err
	}
	next, err := ParseLock(b)
	if err != nil {
		return nil, err
	}
	var out []Difference
	for _, c := range Changes(old, next) {
		d := Difference{Path: c.Input, What: Changed, Old: c.Old, New: c.New}
		switch c.What {
		case Added, Removed:
			d.What = c.What
		case Older, Rebuilt:
			d.Details = []string{c.What}
		}
		out = append(out, d)
	}
	return out, nil
}

// diffTrees compares file by file.
func diffTrees(read func([]byte) (tree, error)) func(a, b []byte) ([]Difference, error) {
	return func(a, b []byte) ([]Difference, error) {
		old, err := read(a)
		if err != nil {
			return nil, err
		}
		next, err := read(b)
		if err != nil {
			return nil, err
		}
		var out []Difference
		names := maps.Clone(old)
		maps.Copy(names, next)
		for _, at := range names.paths() {
			m, n := old[at], next[at]
			switch {
			case m == nil:
				out = append(out, Difference{Path: at, What: Added, New: n.describe()})
			case n == nil:
				out = append(out, Difference{Path: at, What: Removed, Old: m.describe()})
			case m.mode != n.mode || m.link != n.link || !bytes.Equal(m.data, n.data):
				d := Difference{Path: at, What: Changed, Old: m.describe(), New: n.describe()}
				if m.mode.IsRegular() && n.mode.IsRegular() && !bytes.Equal(m.data, n.data) {
					d.Details = explain(m.data, n.data)
				}
				out = append(out, d)
			}
		}
		return out, nil
	}
}

// describe is a node in short. Owners are root on both sides: the readers refuse others.
func (n *node) describe() string {
	switch n.mode.Type() {
	case 0:
		return describe(n.data, n.mode.String())
	case fs.ModeSymlink:
		return "link to " + n.link
	}
	return n.mode.String()
}

// diffSections compares the sections of two PE files: a unified kernel image's parts.
func diffSections(a, b []byte) ([]Difference, error) {
	old, err := sections(a)
	if err != nil {
		return nil, err
	}
	next, err := sections(b)
	if err != nil {
		return nil, err
	}
	var out []Difference
	names := maps.Clone(old)
	maps.Copy(names, next)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		m, had := old[name]
		n, has := next[name]
		switch {
		case !had:
			out = append(out, Difference{Path: name, What: Added, New: describe(n, "")})
		case !has:
			out = append(out, Difference{Path: name, What: Removed, Old: describe(m, "")})
		case !bytes.Equal(m, n):
			out = append(out, Difference{Path: name, What: Changed, Old: describe(m, ""), New: describe(n, ""), Details: explain(m, n)})
		}
	}
	return out, nil
}

// maxSections bounds the sections of a PE file.
const maxSections = 96

func sections(data []byte) (map[string][]byte, error) {
	f, err := pe.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	if len(f.Sections) > maxSections {
		return nil, fmt.Errorf("%d sections", len(f.Sections))
	}
	out := map[string][]byte{}
	for _, s := range f.Sections {
		body, err := s.Data()
		if err != nil {
			return nil, fmt.Errorf("section %s: %w", s.Name, err)
		}
		if _, twice := out[s.Name]; twice {
			return nil, fmt.Errorf("section %s is there twice", s.Name)
		}
		out[s.Name] = body[:min(len(body), int(s.VirtualSize))]
	}
	return out, nil
}

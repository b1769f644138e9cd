package image

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"mayfly/internal/canonical"
	"mayfly/internal/hint"
	"mayfly/rebuild/cpio"
	"mayfly/rebuild/erofs"
	"mayfly/rebuild/release"
)

// MaxSBOM and MaxProvenance bound a software bill of materials and a provenance statement, in bytes.
const (
	MaxSBOM       = 16 << 20
	MaxProvenance = 4 << 20
)

// commitName is what git calls a commit.
var commitName = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)

// SBOM is what `fleetctl image sbom` shows of one.
type SBOM struct {
	Packages []Component `json:"packages"` // Debian's
	Programs []Component `json:"programs"` // ours
	Modules  []Component `json:"modules"`  // Go's, in our programs
	Files    int         `json:"files"`
}

// Component is one of them.
type Component struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	PURL    string `json:"purl,omitempty"`
	SHA256  string `json:"sha256,omitempty"`
}

// Opened is a release's files, taken apart: what its documents are compared with.
type Opened struct {
	dir   string
	lock  []byte
	parts parts
	named []Subject // the statement's parts
}

// OpenRelease reads the files of a release, which have to be those that its statement names.
func OpenRelease(dir string, s *release.Statement) (*Opened, error) {
	p, lock, err := readParts(dir)
	if err != nil {
		return nil, err
	}
	o := &Opened{dir: dir, lock: lock, parts: p, named: []Subject{{release.KernelFile, s.Kernel.SHA256}, {release.StubFile, s.Stub.SHA256}, {release.RootFile, s.Root.SHA256}}}
	for _, f := range append(o.named, Subject{release.LockFile, s.Lock}) {
		if p.sums[f.Name] != f.SHA256 {
			return nil, fmt.Errorf("%s is not the statement's: it has SHA-256 %s", f.Name, p.sums[f.Name])
		}
	}
	if s.UKI != nil {
		o.named = append(o.named, Subject{release.UKIFile, s.UKI.SHA256})
	}
	return o, nil
}

// SBOM makes the release's bill of materials again from the release's own files, and compares. What it takes from the one
// that is there is only which package a file is said to be from; whoever builds the release again (`fleetctl image rebuild`) checks that, too.
func (o *Opened) SBOM() (SBOM, error) {
	data, err := readFile(filepath.Join(o.dir, release.SBOMFile), MaxSBOM)
	if err != nil {
		return SBOM{}, hint.New(err, "`fleetctl image build` puts it beside a release")
	}
	var d spdxDocument
	if err := json.Unmarshal(data, &d); err != nil {
		return SBOM{}, fmt.Errorf("%s: %w", release.SBOMFile, err)
	}
	o.parts.owners = d.owners(o.parts.lock)
	want, err := o.parts.sbom()
	if err != nil {
		return SBOM{}, err
	}
	if !bytes.Equal(want, data) {
		return SBOM{}, differs(release.SBOMFile, want, data)
	}
	return d.summary(), nil
}

// Provenance makes the release's provenance again from the release's own files, and compares. What it takes from the one that is there is
// only the name of the commit, which is returned.
func (o *Opened) Provenance() (commit string, err error) {
	data, err := readFile(filepath.Join(o.dir, release.ProvenanceFile), MaxProvenance)
	if err != nil {
		return "", err
	}
	var said provenance
	if err := canonical.Parse(data, MaxProvenance, &said); err != nil {
		return "", fmt.Errorf("%s: %w", release.ProvenanceFile, err)
	}
	if commit = said.Predicate.Build.External.Source; commit != "" && !commitName.MatchString(commit) {
		return "", fmt.Errorf("%s: %.80q is no commit", release.ProvenanceFile, commit)
	}
	listed, err := readFile(filepath.Join(o.dir, release.SBOMFile), MaxSBOM)
	if err != nil {
		return "", fmt.Errorf("%s is about a bill of materials: %w", release.ProvenanceFile, err)
	}
	sum := sha256.Sum256(listed)
	programs := map[string][]byte{}
	for name, at := range o.parts.ownFiles() {
		programs[name] = o.parts.data(at)
	}
	want, err := provenanceOf(o.lock, programs, commit, append(slices.Clone(o.named), Subject{release.SBOMFile, hex.EncodeToString(sum[:])}))
	if err != nil {
		return "", err
	}
	if !bytes.Equal(want, data) {
		return "", differs(release.ProvenanceFile, want, data)
	}
	return commit, nil
}

func differs(file string, want, data []byte) error {
	return hint.New(fmt.Errorf("%s is not of this release: it differs at byte %d from what the release's files give", file, firstDifference(want, data)),
		"build the release again from its lock file")
}

func firstDifference(a, b []byte) int {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}

// owners reads which package each file is said to be from.
func (d spdxDocument) owners(l LockFile) map[string]string {
	debs, names, out := map[string]string{}, map[string]string{identifier("Part", release.KernelFile): release.KernelFile}, map[string]string{}
	for _, p := range l.Packages {
		debs[identifier("Deb", p.Name)] = p.Name
	}
	for _, f := range d.Files {
		names[f.ID] = strings.TrimPrefix(f.Name, "./")
	}
	for _, r := range d.Relationships {
		if name := names[r.Element]; r.Type == fromDeb && name != "" && debs[r.Related] != "" {
			out[name] = debs[r.Related]
		}
	}
	return out
}

func (d spdxDocument) summary() SBOM {
	s := SBOM{Packages: []Component{}, Programs: []Component{}, Modules: []Component{}, Files: len(d.Files)}
	for _, p := range d.Packages {
		c := Component{Name: p.Name, Version: p.Version}
		if len(p.Refs) > 0 {
			c.PURL = p.Refs[0].Locator
		}
		if len(p.Checksums) > 0 {
			c.SHA256 = p.Checksums[0].Value
		}
		switch {
		case strings.HasPrefix(p.ID, "SPDXRef-Deb-"):
			s.Packages = append(s.Packages, c)
		case strings.HasPrefix(p.ID, "SPDXRef-Program-"):
			s.Programs = append(s.Programs, c)
		case strings.HasPrefix(p.ID, "SPDXRef-Module-"):
			s.Modules = append(s.Modules, c)
		}
	}
	return s
}

// readParts reads a release's files, the lock file as it is among them.
func readParts(dir string) (p parts, lock []byte, err error) {
	p.sums = map[string]string{}
	read := func(name string, limit int64) ([]byte, error) {
		data, err := readFile(filepath.Join(dir, name), limit)
		sum := sha256.Sum256(data)
		p.sums[name] = hex.EncodeToString(sum[:])
		return data, err
	}
	if lock, err = read(release.LockFile, MaxLock); err != nil {
		return p, nil, err
	}
	if p.lock, err = ParseLock(lock); err != nil {
		return p, nil, err
	}
	if p.kernel, err = read(release.KernelFile, release.MaxPart); err != nil {
		return p, nil, err
	}
	stub, err := read(release.StubFile, release.MaxPart)
	if err != nil {
		return p, nil, err
	}
	if p.stub, err = stubTree(stub); err != nil {
		return p, nil, fmt.Errorf("%s: %w", release.StubFile, err)
	}
	root, err := read(release.RootFile, release.MaxPart)
	if err != nil {
		return p, nil, err
	}
	if p.root, err = rootTree(root); err != nil {
		return p, nil, fmt.Errorf("%s: %w", release.RootFile, err)
	}
	return p, lock, nil
}

func readFile(path string, limit int64) ([]byte, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > limit {
		return nil, fmt.Errorf("%s: not a file of at most %d bytes", path, limit)
	}
	return os.ReadFile(path)
}

// stubTree reads an initramfs.
func stubTree(data []byte) (tree, error) {
	files, rest, err := cpio.Read(data)
	if err != nil {
		return nil, err
	}
	if len(rest) > 0 {
		return nil, errors.New("something follows the archive")
	}
	t := tree{}
	for _, f := range files {
		n := &node{mode: f.Mode, data: f.Data}
		if f.Mode.Type() == fs.ModeSymlink {
			n = &node{mode: f.Mode, link: string(f.Data)}
		}
		t["/"+f.Path] = n
	}
	return t, nil
}

// rootTree reads a root.
func rootTree(data []byte) (tree, error) {
	image, err := erofs.Read(data)
	if err != nil {
		return nil, err
	}
	t := tree{}
	for _, f := range image.Files {
		n := &node{mode: f.Mode, data: f.Data}
		if f.Mode.Type() == fs.ModeSymlink {
			n = &node{mode: f.Mode, link: string(f.Data)}
		}
		t["/"+strings.TrimPrefix(f.Path, ".")] = n
	}
	return t, nil
}

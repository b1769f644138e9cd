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
	"strings"

	"mayfly/internal/hint"
	"mayfly/rebuild/cpio"
	"mayfly/rebuild/erofs"
	"mayfly/rebuild/release"
)

// MaxSBOM bounds a software bill of materials, in bytes.
const MaxSBOM = 16 << 20

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

// CheckSBOM makes a release's bill of materials again from the release's own files, and compares. What it takes from the one
// that is there is only which package a file is said to be from; whoever builds the release again checks that, too.
func CheckSBOM(dir string) (SBOM, error) {
	data, err := readFile(filepath.Join(dir, release.SBOMFile), MaxSBOM)
	if err != nil {
		return SBOM{}, hint.New(err, "`fleetctl image build` puts it beside a release")
	}
	var d spdxDocument
	if err := json.Unmarshal(data, &d); err != nil {
		return SBOM{}, fmt.Errorf("%s: %w", release.SBOMFile, err)
	}
	p, err := readParts(dir)
	if err != nil {
		return SBOM{}, err
	}
	p.owners = d.owners(p.lock)
	want, err := p.sbom()
	if err != nil {
		return SBOM{}, err
	}
	if !bytes.Equal(want, data) {
		return SBOM{}, hint.New(fmt.Errorf("%s is not of this release: it differs at byte %d from what the release's files give", release.SBOMFile, firstDifference(want, data)),
			"build the release again from its lock file")
	}
	return d.summary(), nil
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

// readParts reads a release's files.
func readParts(dir string) (parts, error) {
	p := parts{sums: map[string]string{}}
	read := func(name string, limit int64) ([]byte, error) {
		data, err := readFile(filepath.Join(dir, name), limit)
		sum := sha256.Sum256(data)
		p.sums[name] = hex.EncodeToString(sum[:])
		return data, err
	}
	lock, err := read(release.LockFile, MaxLock)
	if err != nil {
		return p, err
	}
	if p.lock, err = ParseLock(lock); err != nil {
		return p, err
	}
	if p.kernel, err = read(release.KernelFile, release.MaxPart); err != nil {
		return p, err
	}
	stub, err := read(release.StubFile, release.MaxPart)
	if err != nil {
		return p, err
	}
	if p.stub, err = stubTree(stub); err != nil {
		return p, fmt.Errorf("%s: %w", release.StubFile, err)
	}
	root, err := read(release.RootFile, release.MaxPart)
	if err != nil {
		return p, err
	}
	if p.root, err = rootTree(root); err != nil {
		return p, fmt.Errorf("%s: %w", release.RootFile, err)
	}
	return p, nil
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

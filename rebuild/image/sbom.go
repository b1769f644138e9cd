package image

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // SPDX asks for it beside SHA-256
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"mayfly/internal/canonical"
	"mayfly/rebuild/release"
)

// contents of a release, from which its SBOM is made: nothing else goes in, so that anybody who has the release can make it again.
type parts struct {
	lock   LockFile
	kernel []byte
	stub   tree
	root   tree
	// owners tells which package a file is from, by the part's name and the path: "root.erofs/usr/sbin/sshd". This is the one thing that a
	// release does not hold itself.
	owners map[string]string
	sums   map[string]string // of the parts, by file name
}

// SPDX 2.3, as far as it is used (ISO/IEC 5962, and its JSON schema).
type spdxDocument struct {
	Version       string             `json:"spdxVersion"`
	License       string             `json:"dataLicense"`
	ID            string             `json:"SPDXID"`
	Name          string             `json:"name"`
	Namespace     string             `json:"documentNamespace"`
	Creation      spdxCreation       `json:"creationInfo"`
	Packages      []spdxPackage      `json:"packages"`
	Files         []spdxFile         `json:"files"`
	Relationships []spdxRelationship `json:"relationships"`
}

type spdxCreation struct {
	Created  string   `json:"created"`
	Creators []string `json:"creators"`
}

type spdxPackage struct {
	Name         string         `json:"name"`
	ID           string         `json:"SPDXID"`
	Version      string         `json:"versionInfo,omitempty"`
	File         string         `json:"packageFileName,omitempty"`
	Supplier     string         `json:"supplier,omitempty"`
	Download     string         `json:"downloadLocation"`
	Analyzed     bool           `json:"filesAnalyzed"`
	Verification *spdxCode      `json:"packageVerificationCode,omitempty"`
	Checksums    []spdxChecksum `json:"checksums,omitempty"`
	Source       string         `json:"sourceInfo,omitempty"`
	Comment      string         `json:"comment,omitempty"`
	Refs         []spdxRef      `json:"externalRefs,omitempty"`
	Purpose      string         `json:"primaryPackagePurpose,omitempty"`
}

type spdxCode struct {
	Value string `json:"packageVerificationCodeValue"`
}

type spdxChecksum struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"checksumValue"`
}

type spdxRef struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

type spdxFile struct {
	Name      string         `json:"fileName"`
	ID        string         `json:"SPDXID"`
	Checksums []spdxChecksum `json:"checksums"`
}

type spdxRelationship struct {
	Element string `json:"spdxElementId"`
	Type    string `json:"relationshipType"`
	Related string `json:"relatedSpdxElement"`
}

const (
	spdxVersion = "SPDX-2.3"
	noAssertion = "NOASSERTION"
	documentID  = "SPDXRef-DOCUMENT"
	imageID     = "SPDXRef-Image"

	// Relationships.
	describes  = "DESCRIBES"
	contains   = "CONTAINS"
	fromDeb    = "EXPANDED_FROM_ARCHIVE"
	staticLink = "STATIC_LINK"
)

// identifiers gives elements their SPDXID: letters, digits, dots and dashes.
func identifier(kind, name string) string {
	sum := sha256.Sum256([]byte(kind + "\x00" + name))
	clean := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' {
			return r
		}
		return '-'
	}, path.Base(name))
	return "SPDXRef-" + kind + "-" + clean + "-" + hex.EncodeToString(sum[:6])
}

// sbom is the software bill of materials: Debian's packages, our programs with the modules in them, and every file with what it comes
// from. Its time is the epoch, and it names no builder: every builder makes the same.
func (p parts) sbom() ([]byte, error) {
	d := &spdxDocument{Version: spdxVersion, License: "CC0-1.0", ID: documentID, Name: "mayfly-image-" + p.lock.Profile,
		Namespace: "urn:mayfly:sbom:" + p.sums[release.RootFile] + p.sums[release.StubFile][:16],
		Creation:  spdxCreation{time.Unix(p.lock.Epoch, 0).UTC().Format(time.RFC3339), []string{"Tool: mayfly-image"}}}
	d.add(spdxPackage{Name: "mayfly-image", ID: imageID, Version: p.lock.Profile, Download: noAssertion, Purpose: "OPERATING-SYSTEM"})
	d.relate(documentID, describes, imageID)
	kernelID := d.part(release.KernelFile, p.sums[release.KernelFile], nil)
	if owner := p.owners[release.KernelFile]; owner != "" {
		d.relate(kernelID, fromDeb, identifier("Deb", owner))
	}
	for _, t := range []struct {
		name string
		tree tree
	}{{release.RootFile, p.root}, {release.StubFile, p.stub}} {
		if err := d.files(t.name, p.sums[t.name], t.tree, p.owners); err != nil {
			return nil, err
		}
	}
	for _, deb := range p.lock.Packages {
		d.add(spdxPackage{Name: deb.Name, ID: identifier("Deb", deb.Name), Version: deb.Version, File: path.Base(deb.File), Supplier: "Organization: Debian", Download: noAssertion,
			Checksums: []spdxChecksum{{"SHA256", deb.SHA256}}, Source: "built from the source package " + deb.Source,
			Refs: []spdxRef{{"PACKAGE-MANAGER", "purl", deb.purl()}}})
	}
	if err := p.programs(d); err != nil {
		return nil, err
	}
	return canonical.Marshal(d)
}

func (d *spdxDocument) add(p spdxPackage) { d.Packages = append(d.Packages, p) }

func (d *spdxDocument) relate(a, kind, b string) {
	d.Relationships = append(d.Relationships, spdxRelationship{a, kind, b})
}

// part adds a file of the release, with the hashes of what is in it.
func (d *spdxDocument) part(name, sum string, inside []string) string {
	p := spdxPackage{Name: name, ID: identifier("Part", name), File: name, Download: noAssertion, Checksums: []spdxChecksum{{"SHA256", sum}}, Purpose: "FILE"}
	if inside != nil {
		slices.Sort(inside)
		code := sha1.Sum([]byte(strings.Join(inside, "")))
		p.Analyzed, p.Verification, p.Purpose = true, &spdxCode{hex.EncodeToString(code[:])}, "ARCHIVE"
	}
	d.add(p)
	d.relate(imageID, contains, p.ID)
	return p.ID
}

// files adds a part and its regular files.
func (d *spdxDocument) files(part, sum string, t tree, owners map[string]string) error {
	var sums []string
	partID := identifier("Part", part)
	from := len(d.Relationships)
	for _, at := range t.paths() {
		if !t[at].mode.IsRegular() {
			continue
		}
		weak, strong := sha1.Sum(t[at].data), sha256.Sum256(t[at].data)
		name := part + at
		f := spdxFile{Name: "./" + name, ID: identifier("File", name), Checksums: []spdxChecksum{{"SHA1", hex.EncodeToString(weak[:])}, {"SHA256", hex.EncodeToString(strong[:])}}}
		sums = append(sums, f.Checksums[0].Value)
		d.Files = append(d.Files, f)
		d.relate(partID, contains, f.ID)
		if owner := owners[name]; owner != "" {
			d.relate(f.ID, fromDeb, identifier("Deb", owner))
		}
	}
	if len(d.Relationships) == from {
		return fmt.Errorf("%s holds no file", part)
	}
	d.part(part, sum, sums)
	return nil
}

func (p Package) purl() string {
	escape := strings.NewReplacer("+", "%2B", ":", "%3A", "~", "~").Replace
	return "pkg:deb/debian/" + escape(p.Name) + "@" + escape(p.Version) + "?arch=" + p.Arch + "&upstream=" + escape(p.Source)
}

// ownFiles are our programs, by name, where they lie.
func (p parts) ownFiles() map[string]string {
	out := map[string]string{}
	for name, at := range programPlaces {
		if p.root[mergeUsr(at)] != nil {
			out[name] = release.RootFile + mergeUsr(at)
		}
	}
	if p.stub["/init"] != nil {
		out["mayfly-stub"] = release.StubFile + "/init"
	}
	return out
}

func (p parts) data(name string) []byte {
	if at, ok := strings.CutPrefix(name, release.RootFile); ok {
		return p.root[at].data
	}
	return p.stub[strings.TrimPrefix(name, release.StubFile)].data
}

// programs adds our own programs, with Go's modules that are in each.
func (p parts) programs(d *spdxDocument) error {
	own := p.ownFiles()
	modules := map[string]*debug.Module{}
	for _, name := range slices.Sorted(maps.Keys(own)) {
		data := p.data(own[name])
		info, err := buildinfo.Read(bytes.NewReader(data))
		if err != nil {
			return fmt.Errorf("program %s: %w", name, err)
		}
		sum := sha256.Sum256(data)
		id := identifier("Program", name)
		d.add(spdxPackage{Name: info.Path, ID: id, Version: info.Main.Version, Download: noAssertion, Checksums: []spdxChecksum{{"SHA256", hex.EncodeToString(sum[:])}},
			Comment: "built with " + info.GoVersion, Purpose: "APPLICATION"})
		d.relate(id, contains, identifier("File", own[name]))
		d.relate(id, staticLink, identifier("Module", "std@"+info.GoVersion))
		modules["std@"+info.GoVersion] = &debug.Module{Path: "std", Version: strings.TrimPrefix(info.GoVersion, "go")}
		for _, m := range info.Deps {
			modules[m.Path+"@"+m.Version] = m
			d.relate(id, staticLink, identifier("Module", m.Path+"@"+m.Version))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(modules)) {
		m := modules[name]
		d.add(spdxPackage{Name: m.Path, ID: identifier("Module", name), Version: m.Version, Download: noAssertion, Comment: m.Sum,
			Refs: []spdxRef{{"PACKAGE-MANAGER", "purl", modulePURL(m)}}, Purpose: "LIBRARY"})
	}
	return nil
}

func modulePURL(m *debug.Module) string {
	return "pkg:golang/" + m.Path + "@" + strings.ReplaceAll(m.Version, "+", "%2B")
}

// owners tells which package each file is from.
func (c choice) owners(own map[string]bool) map[string]string {
	out := map[string]string{}
	for name, paths := range c.taken {
		for _, at := range paths {
			if strings.HasPrefix(at, "/boot/vmlinuz-") {
				out[release.KernelFile] = name
			}
			if n := c.root[at]; n != nil && n.mode.IsRegular() && !own[at] {
				out[release.RootFile+at] = name
			}
			if n := c.stub[at]; n != nil && n.mode.Type() == fs.FileMode(0) {
				out[release.StubFile+at] = name
			}
		}
	}
	return out
}

package image

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"mayfly/rebuild/cpio"
	"mayfly/rebuild/release"
)

// ownProgram is a program of ours, with one module of others.
func ownProgram(t *testing.T) (path string, data []byte) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "buildimage")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-o", path, "./testdata/buildimage")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return path, data
}

// sampleParts is a release with one file from a package, one of ours and one that was made.
func sampleParts(t *testing.T, program []byte) (dir string, p parts) {
	t.Helper()
	root := tree{}
	root.mkdir("/", 0o755)
	root.write("/usr/bin/from-package", 0o755, "package")
	root.write("/etc/made", 0o644, "made")
	root.put(mergeUsr(release.InitPath), &node{mode: 0o755, data: program})
	dir = layRelease(t, root, []cpio.File{{Path: "init", Mode: 0o755, Data: program}, {Path: "dev", Mode: fs.ModeDir | 0o755}}, "kernel", lockFile())
	p, _, err := readParts(dir)
	if err != nil {
		t.Fatal(err)
	}
	p.owners = map[string]string{release.RootFile + "/usr/bin/from-package": "libc6", release.KernelFile: "unbound"}
	return dir, p
}

var (
	spdxID  = regexp.MustCompile(`^SPDXRef-[A-Za-z0-9.-]+$`)
	spdxURI = regexp.MustCompile(`^[a-z]+:[^#\s]+$`)
)

// The document has what SPDX 2.3 asks for, names no element twice, and relates none that is not there.
func TestSBOM(t *testing.T) {
	_, program := ownProgram(t)
	dir, p := sampleParts(t, program)
	data, err := p.sbom()
	if err != nil {
		t.Fatal(err)
	}
	var d map[string]any
	if err := json.Unmarshal(data, &d); err != nil {
		t.Fatal(err)
	}
	if d["spdxVersion"] != "SPDX-2.3" || d["dataLicense"] != "CC0-1.0" || d["SPDXID"] != "SPDXRef-DOCUMENT" || d["name"] == "" || !spdxURI.MatchString(d["documentNamespace"].(string)) {
		t.Errorf("the document says %q %q %q %q %q", d["spdxVersion"], d["dataLicense"], d["SPDXID"], d["name"], d["documentNamespace"])
	}
	creation := d["creationInfo"].(map[string]any)
	if creation["created"] != "2026-11-16T10:17:40Z" || !slices.Equal(creation["creators"].([]any), []any{"Tool: mayfly-image"}) {
		t.Errorf("created %v", creation)
	}
	ids := map[string]bool{"SPDXRef-DOCUMENT": true}
	id := func(e map[string]any) {
		name, _ := e["SPDXID"].(string)
		if !spdxID.MatchString(name) || ids[name] {
			t.Errorf("bad identifier %q, or one that is there twice", name)
		}
		ids[name] = true
	}
	for _, e := range d["packages"].([]any) {
		e := e.(map[string]any)
		id(e)
		if e["name"] == "" || e["downloadLocation"] == nil || e["filesAnalyzed"] == nil {
			t.Errorf("package %v lacks a field", e)
		}
		if analyzed := e["filesAnalyzed"].(bool); analyzed != (e["packageVerificationCode"] != nil) {
			t.Errorf("package %v: a verification code is for what was analyzed, and only that", e["name"])
		}
	}
	for _, e := range d["files"].([]any) {
		e := e.(map[string]any)
		id(e)
		sums := e["checksums"].([]any)
		if !strings.HasPrefix(e["fileName"].(string), "./") || sums[0].(map[string]any)["algorithm"] != "SHA1" || sums[1].(map[string]any)["algorithm"] != "SHA256" {
			t.Errorf("file %v: name or checksums", e)
		}
	}
	kinds := map[string]int{}
	for _, e := range d["relationships"].([]any) {
		e := e.(map[string]any)
		kinds[e["relationshipType"].(string)]++
		for _, end := range []string{"spdxElementId", "relatedSpdxElement"} {
			if !ids[e[end].(string)] {
				t.Errorf("relationship %v: no such element", e)
			}
		}
	}
	if kinds["DESCRIBES"] != 1 || kinds["EXPANDED_FROM_ARCHIVE"] != 2 || kinds["STATIC_LINK"] < 4 {
		t.Errorf("relationships %v", kinds)
	}
	for _, want := range []string{"pkg:deb/debian/libc6@2.36-9%2Bdeb12u14?arch=amd64&upstream=glibc", "pkg:golang/golang.org/x/mod@v", "pkg:golang/std@1."} {
		if !bytes.Contains(data, []byte(want)) {
			t.Errorf("%q is not in it", want)
		}
	}

	// It is checked against the release; whatever is changed in either is found.
	write := func(name string, data []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(release.SBOMFile, data)
	said := &release.Statement{Kernel: release.Part{SHA256: p.sums[release.KernelFile]}, Stub: release.Part{SHA256: p.sums[release.StubFile]},
		Root: release.Part{SHA256: p.sums[release.RootFile]}, Lock: p.sums[release.LockFile]}
	check := func() (SBOM, error) {
		o, err := OpenRelease(dir, said)
		if err != nil {
			return SBOM{}, err
		}
		return o.SBOM()
	}
	list, err := check()
	if err != nil || len(list.Packages) != 2 || len(list.Programs) != 2 || list.Files != 4 {
		t.Fatalf("%+v, %v", list, err)
	}
	for name, changed := range map[string][]byte{
		"a version":      bytes.Replace(data, []byte("2.36-9+deb12u14"), []byte("2.36-9+deb12u15"), 1),
		"a hash":         bytes.Replace(data, []byte(list.Packages[0].SHA256), []byte(strings.Repeat("0", 64)), 1),
		"another owner":  bytes.Replace(data, []byte(identifier("Deb", "libc6")+"\"\n    }"), []byte("SPDXRef-Deb-nobody\"\n    }"), 1),
		"a file less":    bytes.Replace(data, []byte("./root.erofs/etc/made"), []byte("./root.erofs/etc/mad"), 1),
		"another time":   bytes.Replace(data, []byte("2026-11-16"), []byte("2026-11-17"), 1),
		"no JSON":        data[:100],
		"something more": append(bytes.Clone(data), ' '),
	} {
		if bytes.Equal(changed, data) {
			t.Fatalf("%s: nothing was changed", name)
		}
		write(release.SBOMFile, changed)
		if _, err := check(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	write(release.SBOMFile, data)
	write(release.KernelFile, []byte("another kernel"))
	if _, err := check(); err == nil || !strings.Contains(err.Error(), "vmlinuz is not the statement's") {
		t.Errorf("another kernel: %v", err)
	}
}

// A provenance statement is made again from the release's files: whatever it says otherwise is found.
func TestOpenedProvenance(t *testing.T) {
	path, program := ownProgram(t)
	dir, p := sampleParts(t, program)
	bom, err := p.sbom()
	if err != nil {
		t.Fatal(err)
	}
	lock, err := p.lock.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	const commit = "0123456789abcdef0123456789abcdef01234567"
	kernel, other := p.sums[release.KernelFile], strings.Repeat("ab", 32)
	s := &release.Statement{Kernel: release.Part{SHA256: kernel}, Stub: release.Part{SHA256: p.sums[release.StubFile]}, Root: release.Part{SHA256: p.sums[release.RootFile]},
		Lock: p.sums[release.LockFile], UKI: &release.Part{SHA256: other}}
	sum := sha256.Sum256(bom)
	subjects := []Subject{{release.KernelFile, kernel}, {release.StubFile, s.Stub.SHA256}, {release.RootFile, s.Root.SHA256}, {release.UKIFile, other}, {release.SBOMFile, hex.EncodeToString(sum[:])}}
	programs := map[string]string{"mayfly-init": path, "mayfly-stub": path}
	made := func(commit string, subjects []Subject) string {
		t.Helper()
		data, err := Provenance(lock, programs, commit, subjects)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	good := made(commit, subjects)
	more := append(slices.Clone(subjects), Subject{"root.erofs ", other})
	for _, tt := range []struct{ name, data, want string }{
		{"good", good, ""},
		{"no commit", made("", subjects), ""},
		{"another kernel", strings.Replace(good, kernel, other, 1), "is not of this release"},
		{"another bill of materials", strings.Replace(good, hex.EncodeToString(sum[:]), strings.Repeat("00", 32), 1), "is not of this release"},
		{"a subject less", made(commit, subjects[1:]), "is not of this release"},
		{"a subject more", made(commit, more), "is not of this release"},
		{"another lock", strings.Replace(good, `"lock": "`+s.Lock, `"lock": "`+other, 1), "is not of this release"},
		{"another epoch", strings.Replace(good, `"epoch": 1`, `"epoch": 2`, 1), "is not of this release"},
		{"another dependency", strings.Replace(good, "2.36-9%2Bdeb12u14", "2.36-9%2Bdeb12u15", 1), "is not of this release"},
		{"another module", strings.Replace(good, "pkg:golang/golang.org/x/mod@", "pkg:golang/golang.org/x/mud@", 1), "is not of this release"},
		{"another builder", strings.Replace(good, "urn:mayfly:image-builder", "urn:mayfly:image-builder2", 1), "is not of this release"},
		{"another type", strings.Replace(good, "in-toto.io/Statement/v1", "in-toto.io/Statement/v0.1", 1), "is not of this release"},
		{"another predicate", strings.Replace(good, "slsa.dev/provenance/v1", "slsa.dev/provenance/v9", 1), "is not of this release"},
		{"one commit as parameter, another as dependency", strings.Replace(good, `"source": "`+commit, `"source": "`+strings.Repeat("ab", 20), 1), "is not of this release"},
		{"no commit's name", made("HEAD", subjects), "is no commit"},
		{"a field more", strings.Replace(good, "{\n", "{\n  \"x\": 1,\n", 1), "x"},
		{"a field twice", strings.Replace(good, "{\n", "{\n  \"_type\": \"https://in-toto.io/Statement/v1\",\n", 1), "canonical"},
		{"no JSON", "{", release.ProvenanceFile},
	} {
		if tt.want != "" && tt.data == good {
			t.Fatalf("%s: nothing was changed", tt.name)
		}
		for name, data := range map[string]string{release.ProvenanceFile: tt.data, release.SBOMFile: string(bom)} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		o, err := OpenRelease(dir, s)
		if err != nil {
			t.Fatal(err)
		}
		_, err = o.Provenance()
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}

// The statement is an in-toto statement with a SLSA provenance, and the same whoever makes it.
func TestProvenance(t *testing.T) {
	path, program := ownProgram(t)
	lock, err := lockFile().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	const commit = "0123456789abcdef0123456789abcdef01234567"
	sum := strings.Repeat("ab", 32)
	data, err := Provenance(lock, map[string]string{"mayfly-init": path}, commit, []Subject{{release.RootFile, sum}})
	if err != nil {
		t.Fatal(err)
	}
	again, err := Provenance(lock, map[string]string{"mayfly-init": path}, commit, []Subject{{release.RootFile, sum}})
	if err != nil || !bytes.Equal(data, again) {
		t.Errorf("made again, it differs (%v)", err)
	}
	var s struct {
		Type    string `json:"_type"`
		Subject []struct {
			Name   string
			Digest map[string]string
		}
		PredicateType string
		Predicate     struct {
			BuildDefinition struct {
				BuildType            string
				ExternalParameters   map[string]any
				ResolvedDependencies []struct {
					Name, URI string
					Digest    map[string]string
				}
			}
			RunDetails struct {
				Builder    struct{ ID string }
				Byproducts []struct {
					Name   string
					Digest map[string]string
				}
			}
		}
	}
	if err := json.Unmarshal(data, &s); err != nil {
		t.Fatal(err)
	}
	if s.Type != "https://in-toto.io/Statement/v1" || s.PredicateType != "https://slsa.dev/provenance/v1" || len(s.Subject) != 1 || s.Subject[0].Digest["sha256"] != sum {
		t.Errorf("%+v", s)
	}
	b := s.Predicate.BuildDefinition
	lockSum := sha256.Sum256(lock)
	if b.BuildType != buildType || b.ExternalParameters["lock"] != hex.EncodeToString(lockSum[:]) || b.ExternalParameters["source"] != commit || s.Predicate.RunDetails.Builder.ID == "" {
		t.Errorf("%+v", b)
	}
	found := map[string]map[string]string{}
	for _, d := range b.ResolvedDependencies {
		found[d.Name] = d.Digest
		if d.URI == "" && len(d.Digest) == 0 {
			t.Errorf("%s: neither an address nor a hash", d.Name)
		}
	}
	programSum := sha256.Sum256(program)
	if found["libc6"]["sha256"] == "" || found["source"]["gitCommit"] != commit || len(found["golang.org/x/mod"]["dirHash"]) != 64 ||
		s.Predicate.RunDetails.Byproducts[0].Digest["sha256"] != hex.EncodeToString(programSum[:]) {
		t.Errorf("dependencies %v, byproducts %v", found, s.Predicate.RunDetails.Byproducts)
	}
	if _, err := moduleHash("h1:AAAA"); err == nil {
		t.Error("a short hash was accepted")
	}
}

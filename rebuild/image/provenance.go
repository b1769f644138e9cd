package image

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"mayfly/internal/canonical"
)

// An in-toto statement (v1) with a SLSA provenance predicate (v1), as far as it is used.
type provenance struct {
	Type          string            `json:"_type"`
	Subject       []resource        `json:"subject"`
	PredicateType string            `json:"predicateType"`
	Predicate     provenanceDetails `json:"predicate"`
}

type provenanceDetails struct {
	Build buildDefinition `json:"buildDefinition"`
	Run   runDetails      `json:"runDetails"`
}

type buildDefinition struct {
	BuildType    string     `json:"buildType"`
	External     parameters `json:"externalParameters"`
	Dependencies []resource `json:"resolvedDependencies"`
}

type parameters struct {
	Profile string `json:"profile"`
	Lock    string `json:"lock"`
	Spec    string `json:"spec"`
	Epoch   int64  `json:"epoch"`
	Source  string `json:"source,omitempty"`
}

type runDetails struct {
	Builder    builderID  `json:"builder"`
	Byproducts []resource `json:"byproducts"`
}

type builderID struct {
	ID string `json:"id"`
}

type resource struct {
	Name   string            `json:"name,omitempty"`
	URI    string            `json:"uri,omitempty"`
	Digest map[string]string `json:"digest,omitempty"`
}

const (
	statementType  = "https://in-toto.io/Statement/v1"
	predicateType  = "https://slsa.dev/provenance/v1"
	buildType      = "urn:mayfly:image-build:1"
	defaultBuilder = "urn:mayfly:image-builder"
)

// Subject is a file that was built, with its SHA-256 in hex.
type Subject struct{ Name, SHA256 string }

// Provenance says how a release came to be: from which packages, modules and commit, to which files. It says nothing of who built
// it and when; who did is said by builders' signatures over the release. All in it but the commit follows from the release's files, so that it is the
// same from every builder whose tree is that of the same commit (Opened.Provenance makes it again).
func Provenance(lock []byte, programs map[string]string, commit string, subjects []Subject) ([]byte, error) {
	read := map[string][]byte{}
	for name, path := range programs {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("program %s: %w", name, err)
		}
		read[name] = data
	}
	return provenanceOf(lock, read, commit, subjects)
}

func provenanceOf(lock []byte, programs map[string][]byte, commit string, subjects []Subject) ([]byte, error) {
	l, err := ParseLock(lock)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(lock)
	out := provenance{Type: statementType, PredicateType: predicateType}
	for _, s := range subjects {
		out.Subject = append(out.Subject, resource{Name: s.Name, Digest: map[string]string{"sha256": s.SHA256}})
	}
	b := &out.Predicate.Build
	b.BuildType = buildType
	b.External = parameters{Profile: l.Profile, Lock: hex.EncodeToString(sum[:]), Spec: l.Spec, Epoch: l.Epoch, Source: commit}
	for _, p := range l.Packages {
		b.Dependencies = append(b.Dependencies, resource{Name: p.Name, URI: p.purl(), Digest: map[string]string{"sha256": p.SHA256}})
	}
	modules := map[string]resource{}
	for _, name := range slices.Sorted(maps.Keys(programs)) {
		info, err := buildinfo.Read(bytes.NewReader(programs[name]))
		if err != nil {
			return nil, fmt.Errorf("program %s: %w", name, err)
		}
		sum := sha256.Sum256(programs[name])
		out.Predicate.Run.Byproducts = append(out.Predicate.Run.Byproducts, resource{Name: name, Digest: map[string]string{"sha256": hex.EncodeToString(sum[:])}})
		for _, m := range info.Deps {
			hash, err := moduleHash(m.Sum)
			if err != nil {
				return nil, fmt.Errorf("program %s: module %s: %w", name, m.Path, err)
			}
			modules[m.Path+"@"+m.Version] = resource{Name: m.Path, URI: modulePURL(m), Digest: map[string]string{"dirHash": hash}}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(modules)) {
		b.Dependencies = append(b.Dependencies, modules[key])
	}
	b.Dependencies = append(b.Dependencies, resource{Name: "go", URI: "pkg:generic/go@" + strings.TrimPrefix(l.Go, "go")})
	if commit != "" {
		b.Dependencies = append(b.Dependencies, resource{Name: "source", Digest: map[string]string{"gitCommit": commit}})
	}
	out.Predicate.Run.Builder.ID = defaultBuilder
	return canonical.Marshal(out)
}

// moduleHash is go.sum's hash of a module in hex, as in-toto writes it.
func moduleHash(sum string) (string, error) {
	text, ok := strings.CutPrefix(sum, "h1:")
	raw, err := base64.StdEncoding.DecodeString(text)
	if !ok || err != nil || len(raw) != sha256.Size {
		return "", fmt.Errorf("%q is no hash of go.sum", sum)
	}
	return hex.EncodeToString(raw), nil
}

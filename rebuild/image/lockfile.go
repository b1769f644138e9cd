package image

import (
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"mayfly/internal/canonical"
)

// Kind is the first field of every lock file.
const Kind = "mayfly-image-lock/2"

// Bounds of a lock file.
const (
	MaxLock     = 256 << 10
	maxPackages = 500
	maxPoolFile = 300
)

// LockFile is image.lock, canonical JSON (docs/formats/image-lock.md): all that an image is made from, by hash.
type LockFile struct {
	Kind     string    `json:"kind"`
	Profile  string    `json:"profile"` // "cloud", or another of image.toml
	Spec     string    `json:"spec"`    // SHA-256 of image.toml, hex
	Go       string    `json:"go"`      // version of the toolchain, for example "go1.26.8"
	Epoch    int64     `json:"epoch"`   // Unix time of the newest package; every file in the image gets it
	Packages []Package `json:"packages"`
}

// Package is one Debian package. Packages are sorted by name, and each name is there once.
type Package struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Arch    string `json:"arch"`   // "amd64" or "all"
	Source  string `json:"source"` // the source package that it is built from
	File    string `json:"file"`   // its path below the archive's root, on every mirror
	SHA256  string `json:"sha256"`
	Size    int64  `json:"size"`
	// Contents is the SHA-256 of what the image takes from it, as a newc archive.
	Contents string `json:"contents"`
}

var (
	packageVersion = regexp.MustCompile(`^[0-9][A-Za-z0-9.+:~-]{0,99}$`)
	poolFile       = regexp.MustCompile(`^pool/[A-Za-z0-9][A-Za-z0-9+._~%-]*(/[A-Za-z0-9][A-Za-z0-9+._~%-]*){1,8}\.deb$`)
	goVersion      = regexp.MustCompile(`^go1\.[0-9]{1,3}(\.[0-9]{1,3}|rc[0-9]{1,2})?$`)
)

// earliest is a date before which no lock file can have been made.
var earliest = time.Date(2023, time.January, 1, 0, 0, 0, 0, time.UTC)

// ParseLock reads a lock file strictly.
func ParseLock(data []byte) (LockFile, error) {
	var l LockFile
	if err := canonical.Parse(data, MaxLock, &l); err != nil {
		return LockFile{}, fmt.Errorf("reading %s: %w", "image.lock", err)
	}
	if err := l.check(); err != nil {
		return LockFile{}, fmt.Errorf("reading %s: %w", "image.lock", err)
	}
	return l, nil
}

// Marshal returns the lock file's bytes.
func (l LockFile) Marshal() ([]byte, error) {
	if err := l.check(); err != nil {
		return nil, fmt.Errorf("writing %s: %w", "image.lock", err)
	}
	return canonical.Marshal(l)
}

func (l LockFile) check() error {
	switch {
	case l.Kind != Kind:
		return fmt.Errorf("kind is %q, want %q", l.Kind, Kind)
	case !profileName.MatchString(l.Profile):
		return fmt.Errorf("bad profile %q", l.Profile)
	case !isHash(l.Spec):
		return errors.New("spec is not a SHA-256 in lower-case hex")
	case !goVersion.MatchString(l.Go):
		return fmt.Errorf("bad Go version %q", l.Go)
	case l.Epoch < earliest.Unix():
		return fmt.Errorf("epoch %d lies before %s", l.Epoch, earliest.Format(time.DateOnly))
	case len(l.Packages) == 0 || len(l.Packages) > maxPackages:
		return fmt.Errorf("%d packages, want 1 to %d", len(l.Packages), maxPackages)
	}
	last := ""
	for _, p := range l.Packages {
		switch {
		case !packageName.MatchString(p.Name):
			return fmt.Errorf("bad package name %q", p.Name)
		case p.Name <= last:
			return fmt.Errorf("package %s: out of order, or there twice", p.Name)
		case !packageVersion.MatchString(p.Version):
			return fmt.Errorf("package %s: bad version %q", p.Name, p.Version)
		case p.Arch != architecture && p.Arch != "all":
			return fmt.Errorf("package %s: architecture %q", p.Name, p.Arch)
		case !packageName.MatchString(p.Source):
			return fmt.Errorf("package %s: bad source %q", p.Name, p.Source)
		case !poolFile.MatchString(p.File) || len(p.File) > maxPoolFile:
			return fmt.Errorf("package %s: bad file %q", p.Name, p.File)
		case !isHash(p.SHA256):
			return fmt.Errorf("package %s: sha256 is not a hash in lower-case hex", p.Name)
		case !isHash(p.Contents):
			return fmt.Errorf("package %s: contents is not a hash in lower-case hex", p.Name)
		case p.Size <= 0 || p.Size > maxPackage:
			return fmt.Errorf("package %s: size %d", p.Name, p.Size)
		}
		last = p.Name
	}
	return nil
}

func isHash(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == 32 && s == strings.ToLower(s)
}

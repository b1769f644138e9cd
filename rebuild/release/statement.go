// Package release is the statement that people sign: which kernel, stub and root a server may boot, from when until when. It
// verifies signatures over the statement's exact bytes before it parses them, and hashes parts while they stream.
//
// Files: statement.go (the data and its canonical bytes), verify.go (who signed, and whether it may be used now), part.go (streams).
package release

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"mayfly/internal/canonical"
)

// Specification constants.
const (
	// Namespace of a release statement's SSHSIG signatures.
	Namespace = "mayfly-release"
	// Kind of this format's version.
	Kind = "mayfly-release/1"
	// MaxStatement bounds release.json, in bytes.
	MaxStatement = 16 << 10
	// MaxPart bounds each file of a release, in bytes.
	MaxPart = 1 << 30
	// MaxCmdline bounds the kernel command line, in bytes: what x86 takes.
	MaxCmdline = 2047
	// MaxLife is the longest life that a release may allow, as long as the longest max_age of a policy.
	MaxLife = 7 * 24 * time.Hour
)

// Files of a release directory.
const (
	StatementFile  = "release.json"
	SignaturesFile = "release.json.sig"
	KernelFile     = "vmlinuz"
	StubFile       = "stub.cpio"
	RootFile       = "root.erofs"
	LockFile       = "image.lock"
)

// Statement is release.json, canonical JSON (docs/formats/release.md).
type Statement struct {
	Kind      string    `json:"kind"` // "mayfly-release/1"
	Fleet     string    `json:"fleet"`
	Version   uint64    `json:"version"` // rises
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	MaxAge    int64     `json:"max_age_seconds"` // no life under this release is longer
	Kernel    Part      `json:"kernel"`
	Stub      Part      `json:"stub"`
	Root      Part      `json:"root"`
	Cmdline   string    `json:"cmdline"`
	Lock      string    `json:"lock"`       // SHA-256 of the lock file, hex
	MinPolicy uint64    `json:"min_policy"` // least policy version that a server under this release obeys
}

// Part is a file by size and hash.
type Part struct {
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"` // hex
}

// Parse reads a statement strictly. It says nothing about signatures: use Verify before believing one.
func Parse(data []byte) (*Statement, error) {
	s := new(Statement)
	if err := canonical.Parse(data, MaxStatement, s); err != nil {
		return nil, fmt.Errorf("reading a release statement: %w", err)
	}
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("reading a release statement: %w", err)
	}
	return s, nil
}

// Marshal returns the bytes that people sign.
func (s *Statement) Marshal() ([]byte, error) {
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("writing a release statement: %w", err)
	}
	return canonical.Marshal(s)
}

func (s *Statement) check() error {
	switch {
	case s.Kind != Kind:
		return fmt.Errorf("kind is %q, not %q", s.Kind, Kind)
	case s.Fleet == "" || len(s.Fleet) > 63:
		return fmt.Errorf("fleet %q is no name", s.Fleet)
	case s.Version == 0:
		return errors.New("version is 0")
	case s.NotBefore.IsZero() || s.NotBefore.Location() != time.UTC || s.NotAfter.Location() != time.UTC:
		return errors.New("not_before and not_after have to be times in UTC")
	case !s.NotBefore.Before(s.NotAfter):
		return errors.New("not_after is not later than not_before")
	case s.MaxAge <= 0 || s.MaxAge > int64(MaxLife/time.Second):
		return fmt.Errorf("max_age_seconds is %d, not 1 to %d", s.MaxAge, int64(MaxLife/time.Second))
	case !isHash(s.Lock):
		return errors.New("lock is not a SHA-256 in lower-case hex")
	case len(s.Cmdline) > MaxCmdline || strings.ContainsFunc(s.Cmdline, func(r rune) bool { return r < ' ' || r > '~' }):
		return fmt.Errorf("cmdline is longer than %d bytes, or not printable ASCII", MaxCmdline)
	}
	for _, p := range []struct {
		name string
		part Part
	}{{"kernel", s.Kernel}, {"stub", s.Stub}, {"root", s.Root}} {
		if !isHash(p.part.SHA256) {
			return fmt.Errorf("%s: sha256 is not a SHA-256 in lower-case hex", p.name)
		}
		if p.part.Size <= 0 || p.part.Size > MaxPart {
			return fmt.Errorf("%s: size is %d, not 1 to %d", p.name, p.part.Size, int64(MaxPart))
		}
	}
	return nil
}

func isHash(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == 32 && s == strings.ToLower(s)
}

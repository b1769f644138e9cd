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
	Kind = "mayfly-release/2"
	// BuildNamespace of a builder's signature over the same bytes: "I made these parts myself, from the lock file".
	BuildNamespace = "mayfly-build"
	// MaxStatement bounds release.json, in bytes.
	MaxStatement = 16 << 10
	// MaxPart bounds each file of a release, in bytes.
	MaxPart = 1 << 30
	// MaxName bounds the name, in bytes.
	MaxName = 100
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
	ProofFile      = "release.json.proof" // that the public ledger holds it, under witnesses' cosignatures
	UKIFile        = "mayfly.efi"
	SignedUKIFile  = "mayfly.signed.efi" // the same, signed under the fleet's Secure Boot key
	SBOMFile       = "sbom.spdx.json"
	ProvenanceFile = "provenance.json"
)

// Profiles of an image: which kernel and drivers it holds.
const (
	ProfileCloud = "cloud"
	ProfileMetal = "metal"
)

// Statement is release.json, canonical JSON (docs/formats/release.md).
type Statement struct {
	Kind      string    `json:"kind"` // "mayfly-release/2"
	Fleet     string    `json:"fleet"`
	Name      string    `json:"name,omitempty"` // for people
	Version   uint64    `json:"version"`        // rises
	Least     uint64    `json:"least"`          // oldest version that may still boot once this one is out; 1 to version
	Profile   string    `json:"profile"`        // which kernel and drivers: ProfileCloud or ProfileMetal
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	MaxAge    int64     `json:"max_age_seconds"` // no life under this release is longer
	Kernel    Part      `json:"kernel"`
	Stub      Part      `json:"stub"`
	Root      Part      `json:"root"`
	UKI       *Part     `json:"uki,omitempty"` // the unified kernel image, before it is signed for Secure Boot

	// Authenticode hashes (SHA-256, hex), which signing does not change: what firmware measures into PCR 4 when it starts the file.
	UKIAuthenticode    string `json:"uki_authenticode,omitempty"`
	KernelAuthenticode string `json:"kernel_authenticode,omitempty"`

	Cmdline   string `json:"cmdline"`
	Lock      string `json:"lock"`       // SHA-256 of the lock file, hex
	MinPolicy uint64 `json:"min_policy"` // least policy version that a server under this release obeys
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
	case s.Least == 0 || s.Least > s.Version:
		return fmt.Errorf("least is %d, not 1 to version %d", s.Least, s.Version)
	case len(s.Name) > MaxName || strings.ContainsFunc(s.Name, func(r rune) bool { return r < ' ' || r > '~' }):
		return fmt.Errorf("name is longer than %d bytes, or not printable ASCII", MaxName)
	case s.Profile != ProfileCloud && s.Profile != ProfileMetal:
		return fmt.Errorf("profile is %q, not %q or %q", s.Profile, ProfileCloud, ProfileMetal)
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
	if (s.UKI != nil) != (s.UKIAuthenticode != "") || s.UKI != nil && s.KernelAuthenticode == "" {
		return errors.New("uki, uki_authenticode and kernel_authenticode are there together, or none is")
	}
	for name, hash := range map[string]string{"uki_authenticode": s.UKIAuthenticode, "kernel_authenticode": s.KernelAuthenticode} {
		if hash != "" && !isHash(hash) {
			return fmt.Errorf("%s is not a SHA-256 in lower-case hex", name)
		}
	}
	parts := []namedPart{{"kernel", s.Kernel}, {"stub", s.Stub}, {"root", s.Root}}
	if s.UKI != nil {
		parts = append(parts, namedPart{"uki", *s.UKI})
	}
	for _, p := range parts {
		if !isHash(p.part.SHA256) {
			return fmt.Errorf("%s: sha256 is not a SHA-256 in lower-case hex", p.name)
		}
		if p.part.Size <= 0 || p.part.Size > MaxPart {
			return fmt.Errorf("%s: size is %d, not 1 to %d", p.name, p.part.Size, int64(MaxPart))
		}
	}
	return nil
}

type namedPart struct {
	name string
	part Part
}

func isHash(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == 32 && s == strings.ToLower(s)
}

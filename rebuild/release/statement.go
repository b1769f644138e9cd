// Package release is the statement that people sign: which kernel, stub and root a server may boot, from when until when. It
// verifies signatures over the statement's exact bytes before it parses them, and hashes parts while they stream.
package release

import "time"

// Namespace of a release statement's SSHSIG signatures.
const Namespace = "mayfly-release"

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

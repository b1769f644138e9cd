package store

import (
	"context"
	"time"
)

// What is known of a release. A release that is bad stays bad.
const (
	Good = "good" // a whole train of it arrived, or it was the first
	Bad  = "bad"
)

// Use is which release servers are to run.
type Use struct {
	Version uint64    `json:"version"`
	Digest  string    `json:"digest"` // SHA-256 of release.json, hex
	By      string    `json:"by,omitempty"`
	At      time.Time `json:"at"`
}

// Mark is what was found of a release.
type Mark struct {
	Version uint64    `json:"version"`
	Digest  string    `json:"digest"`
	Mark    string    `json:"mark"` // Good or Bad
	Why     string    `json:"why,omitempty"`
	By      string    `json:"by,omitempty"`
	At      time.Time `json:"at"`
}

// Releases are which release servers run, and what is known of each.
type Releases interface {
	// UseRelease says which release servers are to run from now on; ErrBad for one that is marked bad.
	UseRelease(ctx context.Context, u Use) error
	// InUse returns what UseRelease said last, if anything.
	InUse(ctx context.Context) (Use, bool, error)
	// MarkRelease marks a release. ErrBad if it is bad and the mark is another; the first mark of a kind stands.
	MarkRelease(ctx context.Context, m Mark) error
	// Marks returns all marks, by version.
	Marks(ctx context.Context) ([]Mark, error)
}

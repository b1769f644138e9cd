// Package ledger judges a whole ledger (policies/ledger): whether every release that ran was signed and logged, no life was longer than its
// release allows, and no server lived twice at once. It takes entries in their order and reads nothing itself; that they are those of the
// checkpoint which witnesses cosigned is the reader's part (internal/audit.Walk).
//
// Files: check.go (the entries, one after the other), lives.go (a life's begin and end), extended.go (one that goes on), policies.go (the trust policies that were in force), report.go.
package ledger

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"mayfly/policies/ledger"
	"mayfly/policies/trust"
	"mayfly/rebuild/release"
)

// Reason codes of violations, beside those of releases.
const (
	EntryMalformed  = "entry_malformed"  // not an entry of a ledger
	TimeBack        = "time_back"        // an entry is older than the one before it
	TimeAhead       = "time_ahead"       // an entry is later than the time at which it was seen
	TimeLate        = "time_late"        // an entry is older than the time at which it was not there yet
	TrustUnknown    = "trust_unknown"    // a trust policy that does not belong to the chain
	TrustBack       = "trust_back"       // an older trust policy than the one before
	ReleaseForked   = "release_forked"   // two releases of one version
	ReleaseUnlogged = "release_unlogged" // a life under a release that is not in the ledger before it
	ReleaseFrozen   = "release_frozen"   // a life under a release that a newer one no longer lets boot
	LifeTooLong     = "life_too_long"    // from its begin to its deadline, or to its end, longer than max_age
	LifeTime        = "life_time"        // its times are not before the entry that says so
	LifeEvidence    = "life_evidence"    // less evidence than is asked for
	LivesOverlap    = "lives_overlap"    // a server's next life begins before the last was over
	EpochNotRising  = "epoch_not_rising" // a life that was before
	EndUnknown      = "end_unknown"      // the end of a life that is not running
	LifeExtended    = "life_extended"    // a life that goes on, and approvers have not said so, or may not
)

// Implementation constants.
const (
	maxViolations = 1000             // that are kept
	clockSlack    = time.Minute      // that the signer's clock may be set back
	seenSlack     = 20 * time.Minute // between the signer's clock and witnesses', and from an entry to its checkpoint's cosignatures
	maxWait       = 2 * time.Hour    // from a ticket to the life's entry: a ticket's longest window, and slack
)

// Rules are what a ledger is held against.
type Rules struct {
	Policies Policies      // whose signatures counted when
	MaxAge   time.Duration // no life is longer, whatever its release says; 0: as its release says
	Attested bool          // every life has to be

	// What others than the signer know of its time. None: it is believed.
	Now    time.Time // nothing is later
	Seen   []Seen    // entries before Size were there at Time
	Unseen []Seen    // entries from Size on were not
}

// Seen is how much of a ledger somebody else saw, and when.
type Seen struct {
	Size uint64
	Time time.Time
}

// Violation is what is wrong with one entry.
type Violation struct {
	Index  uint64 `json:"index"`
	Reason string `json:"reason"`
	Server string `json:"server,omitempty"`
	Detail string `json:"detail"`
}

// Checker goes through a ledger.
type Checker struct {
	rules    Rules
	policy   *trust.Trust // in force by the last trust entry
	version  uint64       // its version
	byHash   map[string]*release.Statement
	versions map[uint64]string
	least    uint64
	last     time.Time
	lives    map[string]*life
	report   Report
}

// New begins with the first entry.
func New(r Rules) *Checker {
	return &Checker{rules: r, byHash: map[string]*release.Statement{}, versions: map[uint64]string{}, lives: map[string]*life{}}
}

// Add takes the next entry.
func (c *Checker) Add(index uint64, text []byte) {
	c.report.Entries++
	e, err := ledger.Parse(text)
	if err != nil {
		c.wrong(index, EntryMalformed, "", "%v", err)
		return
	}
	if e.Time.Add(clockSlack).Before(c.last) {
		c.wrong(index, TimeBack, "", "of %s, the one before is of %s", e.Time.Format(time.RFC3339), c.last.Format(time.RFC3339))
	}
	if e.Time.After(c.last) {
		c.last = e.Time
	}
	c.seen(index, e.Time)
	switch {
	case e.Trust != nil:
		c.trust(index, *e.Trust)
	case e.Release != nil:
		c.release(index, e.Time, *e.Release)
	case e.Begin != nil:
		c.begin(index, e.Time, *e.Begin)
	case e.Extend != nil:
		c.extend(index, e.Time, *e.Extend)
	case e.End != nil:
		c.end(index, e.Time, *e.End)
	}
}

// seen holds an entry's time, which is the signer's word, against when others saw it or did not.
func (c *Checker) seen(index uint64, at time.Time) {
	latest := c.rules.Now
	for _, s := range c.rules.Seen {
		if index < s.Size && (latest.IsZero() || s.Time.Before(latest)) {
			latest = s.Time
		}
	}
	if !latest.IsZero() && at.After(latest.Add(seenSlack)) {
		c.wrong(index, TimeAhead, "", "of %s, and it was there at %s", at.Format(time.RFC3339), latest.UTC().Format(time.RFC3339))
	}
	for _, s := range c.rules.Unseen {
		if index >= s.Size && at.Before(s.Time.Add(-seenSlack)) {
			c.wrong(index, TimeLate, "", "of %s, and it was not there at %s", at.Format(time.RFC3339), s.Time.UTC().Format(time.RFC3339))
		}
	}
}

func (c *Checker) wrong(index uint64, reason, server, format string, args ...any) {
	c.report.Wrong++
	if len(c.report.Violations) < maxViolations {
		c.report.Violations = append(c.report.Violations, Violation{index, reason, server, fmt.Sprintf(format, args...)})
	}
}

func (c *Checker) trust(index uint64, t ledger.Trust) {
	if t.Version <= c.version {
		c.wrong(index, TrustBack, "", "version %d, the one before is %d", t.Version, c.version)
		return
	}
	c.version = t.Version
	p, ok := c.rules.Policies[t.SHA256]
	if !ok || p.Version != t.Version {
		c.policy = nil
		c.wrong(index, TrustUnknown, "", "no trust policy %d with SHA-256 %s belongs to the chain", t.Version, t.SHA256)
		return
	}
	c.policy = p
}

func (c *Checker) release(index uint64, at time.Time, r ledger.Release) {
	sum := sha256.Sum256([]byte(r.Statement))
	hash := hex.EncodeToString(sum[:])
	// nil, before any trust policy or under one that is not known, believes nobody.
	s, err := release.Open(c.policy, []byte(r.Statement), []byte(r.Signatures))
	if err == nil && !at.Before(s.NotAfter) {
		err = s.At(at)
	}
	if err != nil {
		reason := release.Malformed
		if refused, ok := errors.AsType[*release.Refusal](err); ok {
			reason, err = refused.Reason, refused.Err
		}
		c.wrong(index, reason, "", "release with SHA-256 %s: %v", hash, err)
		if s, err = release.Parse([]byte(r.Statement)); err != nil {
			return
		}
	}
	if other, ok := c.versions[s.Version]; ok {
		c.wrong(index, ReleaseForked, "", "release %d with SHA-256 %s, and %s was before", s.Version, hash, other)
		return
	}
	c.versions[s.Version], c.byHash[hash] = hash, s
	c.least = max(c.least, s.Least)
	c.report.Releases = append(c.report.Releases, Release{Index: index, Time: at, Version: s.Version, Name: s.Name, SHA256: hash, Least: s.Least})
}

package ledger

import (
	"slices"
	"strings"
	"time"
)

// Report is what a ledger says, and what is wrong with it.
type Report struct {
	Entries    uint64      `json:"entries"`
	Releases   []Release   `json:"releases"`
	Lives      uint64      `json:"lives"`
	Ends       uint64      `json:"ends"`
	Extended   uint64      `json:"extended"` // times that approvers let a life go on
	Attested   uint64      `json:"attested"` // lives
	Claimed    uint64      `json:"claimed"`
	Unverified uint64      `json:"unverified"`
	Longest    int64       `json:"longest_seconds"` // from a life's begin to its deadline
	Running    []Running   `json:"running"`         // sorted by name
	Wrong      uint64      `json:"wrong"`           // violations
	Violations []Violation `json:"violations"`      // the first of them
}

// Release is one that may have run.
type Release struct {
	Index   uint64    `json:"index"`
	Time    time.Time `json:"time"`
	Version uint64    `json:"version"`
	Name    string    `json:"name,omitempty"`
	SHA256  string    `json:"sha256"`
	Least   uint64    `json:"least"`
}

// Running is a life that nobody has said is over, and whose deadline has not passed.
type Running struct {
	Index    uint64    `json:"index"`
	Server   string    `json:"server"`
	Epoch    uint64    `json:"epoch"`
	Release  uint64    `json:"release"`
	Evidence string    `json:"evidence"`
	Began    time.Time `json:"began"`
	Age      int64     `json:"age_seconds"` // at most: the machine booted after began
	Deadline time.Time `json:"deadline"`
}

func (r *Report) longest(d time.Duration) { r.Longest = max(r.Longest, int64(d/time.Second)) }

// Report is what was found, with the lives that run at now.
func (c *Checker) Report(now time.Time) Report {
	r := c.report
	for name, l := range c.lives {
		if !l.ended && now.Before(l.Deadline) {
			r.Running = append(r.Running, Running{Index: l.index, Server: name, Epoch: l.Epoch, Release: l.Release, Evidence: l.Evidence,
				Began: l.Began, Age: int64(now.Sub(l.Began) / time.Second), Deadline: l.Deadline})
		}
	}
	slices.SortFunc(r.Running, func(a, b Running) int { return strings.Compare(a.Server, b.Server) })
	return r
}

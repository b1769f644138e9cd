// Package plugin is how a site's own decider takes part in the bastion's decisions: what it is asked, what it may answer, and the
// relay between the bastion and the process that runs it. A plugin can only deny. It is asked after the bastion's own decision was to allow, and
// whatever else it does (crash, answer late, answer nonsense, not be the file that the signed policy pins) denies too.
//
// Three processes: the bastion, which faces strangers and links none of the plugins' machinery; the host (bastion/cmd/bastion-plugins),
// which the bastion starts before it confines itself, and which runs as the plugins' own user; and a plugin for each pin of
// the policy, which the host starts and starts again. Package sdk is for who writes a plugin, package host runs them, docs/formats/plugin.md
// tells all of it.
package plugin

import (
	"errors"
	"fmt"
	"time"

	"mayfly/internal/canonical"
)

// Bounds of what is sent.
const (
	MaxMessage = 16 << 10
	MaxText    = 256 // bytes of an answer's text
)

// Request is what a plugin is asked: may this person, whom the policy allows, come in, or go there.
type Request struct {
	Kind     string    `json:"kind"` // "login" or "target"
	User     string    `json:"user"`
	Identity string    `json:"identity"` // "engineer", "robot", "break_glass"
	Source   string    `json:"source"`   // address, without a port
	Key      string    `json:"key"`      // SHA-256 fingerprint, possession proven
	Server   string    `json:"server"`   // of a target: its name in the inventory
	Port     uint16    `json:"port"`     // of a target
	Time     time.Time `json:"time"`
}

// Answer is what a plugin says.
type Answer struct {
	Deny bool   `json:"deny"`
	Text string `json:"text"` // why, for the audit log
}

// Pin is a plugin as the signed policy names it.
type Pin struct {
	Name     string        `json:"name"`
	SHA256   string        `json:"sha256"`
	Deadline time.Duration `json:"deadline"`
}

// Outcomes of asking.
const (
	Allowed = "allowed"
	Denied  = "plugin_denied" // a plugin said no
	Failed  = "plugin_failed" // it does not run, crashed, or answered nonsense
	Late    = "plugin_late"   // it did not answer in time
)

// Verdict is what came of asking. Its zero value denies.
type Verdict struct {
	Outcome string `json:"outcome"`
	Plugin  string `json:"plugin"`
	Text    string `json:"text"`
}

// ParseRequest reads a request strictly: it is for a plugin, which gets nothing else.
func ParseRequest(data []byte) (Request, error) {
	var r Request
	if err := canonical.Parse(data, MaxMessage, &r); err != nil {
		return Request{}, fmt.Errorf("reading request: %w", err)
	}
	return r, nil
}

// ParseAnswer reads an answer strictly.
func ParseAnswer(data []byte) (Answer, error) {
	var a Answer
	if err := canonical.Parse(data, MaxMessage, &a); err != nil {
		return Answer{}, fmt.Errorf("reading answer: %w", err)
	}
	if len(a.Text) > MaxText {
		return Answer{}, errors.New("reading answer: its text is too long")
	}
	return a, nil
}

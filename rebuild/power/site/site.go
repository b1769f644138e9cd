// Package site is what a site's own power driver is asked and what it answers: a program that reads one question from standard input
// and writes one answer to standard output (driver "exec"), or a plugin (driver "plugin", package sdk). What it does is the site's: a PDU,
// a hoster's API, a hypervisor. Nothing that it answers is believed alone: after on and off, mayfly asks for the status.
package site

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// Specification constants (docs/formats/power.md).
const (
	Protocol = "mayfly-power/1"

	DoStatus  = "status"  // is it on? Answer.Power
	DoBoot    = "boot"    // set the next boot. Answer.Boot, as read back
	DoOn      = "on"      // switch it on
	DoOff     = "off"     // switch it off, hard
	DoConsole = "console" // what did it say last? Answer.Console
	DoJoined  = "joined"  // it has booted: let go of what it booted from

	On       = "on"
	Off      = "off"
	Changing = "changing"

	MaxMessage = 64 << 10
	MaxText    = 512
)

// Request is a question.
type Request struct {
	Protocol string `json:"protocol"`
	Do       string `json:"do"`
	Server   string `json:"server"`
	Epoch    uint64 `json:"epoch,omitempty"`    // of boot: which life
	Medium   string `json:"medium,omitempty"`   // of boot: URL of a disk image that boots by UEFI; none if the release has none
	Script   string `json:"script,omitempty"`   // of boot: URL of an iPXE script
	Settings string `json:"settings,omitempty"` // from the inventory
	Password string `json:"password,omitempty"` // opened from its seal; do not log it
}

// Answer is what became of it.
type Answer struct {
	Reason  string `json:"reason,omitempty"`  // why it failed; "busy" is asked again
	Text    string `json:"text,omitempty"`    // for people
	Power   string `json:"power,omitempty"`   // of status: On, Off or Changing; anything else is unknown
	Boot    string `json:"boot,omitempty"`    // of boot: the URL that was read back; empty where there is nothing to set
	Console string `json:"console,omitempty"` // of console
}

// ParseAnswer reads an answer strictly: one object, of known fields, each once.
func ParseAnswer(data []byte) (Answer, error) {
	var a Answer
	if err := parse(data, &a); err != nil {
		return Answer{}, fmt.Errorf("reading an answer: %w", err)
	}
	if len(a.Text) > MaxText || len(a.Reason) > MaxText {
		return Answer{}, errors.New("reading an answer: its text is too long")
	}
	return a, nil
}

// ParseRequest reads a question strictly.
func ParseRequest(data []byte) (Request, error) {
	var r Request
	if err := parse(data, &r); err != nil {
		return Request{}, fmt.Errorf("reading a question: %w", err)
	}
	if r.Protocol != Protocol {
		return Request{}, fmt.Errorf("reading a question: protocol %q, not %q", r.Protocol, Protocol)
	}
	return r, nil
}

func parse(data []byte, v any) error {
	if len(data) > MaxMessage {
		return fmt.Errorf("longer than %d bytes", MaxMessage)
	}
	if !utf8.Valid(data) {
		return errors.New("not UTF-8")
	}
	if err := once(data); err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	return dec.Decode(v)
}

// once wants one flat object, each key once.
func once(data []byte) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return fmt.Errorf("not an object: %w", err)
	}
	seen := map[string]bool{}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return err
		}
		name := fmt.Sprint(key)
		if seen[name] {
			return fmt.Errorf("%.64q twice", name)
		}
		seen[name] = true
		value, err := dec.Token()
		if err != nil {
			return err
		}
		if _, nested := value.(json.Delim); nested {
			return errors.New("a value in a value")
		}
	}
	if _, err := dec.Token(); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one answer")
	}
	return nil
}

// Package extension is the one way to let a server live beyond its deadline: a file that as many approvers sign as the trust policy's
// threshold says. The server verifies it by itself, and so does the signer, which gives no certificate beyond the end of a life; whoever
// carries it between them can leave it away and nothing else.
package extension

import (
	"errors"
	"fmt"
	"regexp"
	"time"

	"mayfly/internal/canonical"
	"mayfly/policies/statement"
	"mayfly/policies/trust"
	"mayfly/rebuild/release"
)

// Specification constants.
const (
	// Kind of this format's version.
	Kind = "mayfly-extension/1"
	// Namespace of an extension's SSHSIG signatures.
	Namespace = "mayfly-extension"
	// MaxBytes bounds the file.
	MaxBytes = 4 << 10
	// MaxWait is how long after it was made an extension may be taken: what was thought of yesterday is thought of again.
	MaxWait = 24 * time.Hour
	// MaxOfALife is how often one life may be extended. With its bound of release.MaxLife that is the end of any life.
	MaxOfALife = 3
	// MaxLife is the longest that a life lasts from its boot, however often it is extended.
	MaxLife = release.MaxLife

	maxSkew = time.Minute // how far clocks may differ
	maxName = 63
)

// Reason codes of a Refusal.
const (
	Malformed  = "extension_malformed"
	Unsigned   = "extension_unsigned"    // by too few approvers
	OtherFleet = "extension_other_fleet" //
	OtherLife  = "extension_other_life"  // of another server, or of another life of it
	Early      = "extension_early"       // made in the future
	Late       = "extension_late"        // made longer ago than MaxWait, or over already
	TooLong    = "extension_too_long"    // beyond MaxLife from the boot
	TooMany    = "extension_too_many"    // more than MaxOfALife
	Shorter    = "extension_shorter"     // the life ends later already: nothing changes
)

// Reasons are all of them.
var Reasons = []string{Malformed, Unsigned, OtherFleet, OtherLife, Early, Late, TooLong, TooMany, Shorter}

// Refusal is why a life ends when it was to.
type Refusal struct {
	Reason string
	Err    error
}

func (r *Refusal) Error() string { return r.Reason + ": " + r.Err.Error() }
func (r *Refusal) Unwrap() error { return r.Err }

// Refused makes a program end with the exit code of a refusal.
func (r *Refusal) Refused() bool { return true }

// Refuse makes a refusal.
func Refuse(reason, format string, args ...any) *Refusal {
	return &Refusal{Reason: reason, Err: fmt.Errorf(format, args...)}
}

// Extension is the file's content, canonical JSON.
type Extension struct {
	Kind   string    `json:"kind"` // "mayfly-extension/1"
	Fleet  string    `json:"fleet"`
	Server string    `json:"server"`
	Epoch  uint64    `json:"epoch"` // of the life; no other one is extended
	Until  time.Time `json:"until"` // its new end
	Reason string    `json:"reason"`
	Made   time.Time `json:"made"`
}

var name = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// Check says whether every field has its form.
func (e *Extension) Check() error {
	switch {
	case e.Kind != Kind:
		return fmt.Errorf("kind is %.40q, not %q", e.Kind, Kind)
	case e.Fleet == "" || len(e.Fleet) > maxName:
		return fmt.Errorf("fleet %.80q is no name", e.Fleet)
	case !name.MatchString(e.Server):
		return fmt.Errorf("server %.80q is no name", e.Server)
	case e.Epoch == 0:
		return errors.New("epoch is 0")
	case !wholeUTC(e.Made) || !wholeUTC(e.Until):
		return errors.New("made and until are not whole seconds in UTC")
	case !e.Made.Before(e.Until) || e.Until.Sub(e.Made) > MaxLife:
		return fmt.Errorf("until is not later than made, by at most %s", MaxLife)
	}
	return statement.CheckReason(e.Reason)
}

func wholeUTC(t time.Time) bool {
	return !t.IsZero() && t.Location() == time.UTC && t.Nanosecond() == 0
}

// Marshal returns the bytes that people sign.
func (e *Extension) Marshal() ([]byte, error) {
	if err := e.Check(); err != nil {
		return nil, fmt.Errorf("writing an extension: %w", err)
	}
	return canonical.Marshal(e)
}

// Parse reads an extension strictly. It says nothing about signatures.
func Parse(data []byte) (*Extension, error) {
	e := new(Extension)
	if err := canonical.Parse(data, MaxBytes, e); err != nil {
		return nil, fmt.Errorf("reading an extension: %w", err)
	}
	if err := e.Check(); err != nil {
		return nil, fmt.Errorf("reading an extension: %w", err)
	}
	return e, nil
}

// Open returns the extension of this life that enough approvers have signed and that may be taken now, and who signed. Its error is a *Refusal.
func Open(t *trust.Trust, data, sigs []byte, server string, epoch uint64, now time.Time) (*Extension, []string, error) {
	people, err := t.Approved(Namespace, data, sigs)
	if err != nil {
		return nil, nil, &Refusal{Unsigned, err}
	}
	e, err := Parse(data)
	switch {
	case err != nil:
		return nil, nil, &Refusal{Malformed, err}
	case e.Fleet != t.Fleet:
		return nil, nil, Refuse(OtherFleet, "it is for fleet %q, not %q", e.Fleet, t.Fleet)
	case e.Server != server || e.Epoch != epoch:
		return nil, nil, Refuse(OtherLife, "it is for life %d of %q, not life %d of %q", e.Epoch, e.Server, epoch, server)
	case e.Made.Sub(now) > maxSkew:
		return nil, nil, Refuse(Early, "it was made at %s", e.Made.Format(time.RFC3339))
	case now.Sub(e.Made) > MaxWait || !now.Before(e.Until):
		return nil, nil, Refuse(Late, "it was made at %s and ends at %s", e.Made.Format(time.RFC3339), e.Until.Format(time.RFC3339))
	}
	return e, people, nil
}

// Life is what is known of the life that is to be extended.
type Life struct {
	Began time.Time // its boot, or something that was not earlier
	Ends  time.Time
	Times int // how often it was extended
}

// Extend returns the life as it is with the extension, or a *Refusal.
func (l Life) Extend(e *Extension) (Life, error) {
	switch {
	case !e.Until.After(l.Ends):
		return l, Refuse(Shorter, "the life ends at %s, the extension at %s", l.Ends.Format(time.RFC3339), e.Until.Format(time.RFC3339))
	case l.Times >= MaxOfALife:
		return l, Refuse(TooMany, "the life was extended %d times", l.Times)
	case l.Began.IsZero() || e.Until.After(l.Began.Add(MaxLife)):
		return l, Refuse(TooLong, "%s is later than %s after the beginning, %s", e.Until.Format(time.RFC3339), MaxLife, l.Began.Format(time.RFC3339))
	}
	return Life{Began: l.Began, Ends: e.Until, Times: l.Times + 1}, nil
}

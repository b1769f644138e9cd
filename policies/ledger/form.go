package ledger

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

var (
	serverName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	evidences  = []string{Attested, Claimed, Unverified}
	reasons    = []string{Rotated, Passed, Revoked, Failed, Superseded}
)

// IsReason tells whether an end may have this reason.
func IsReason(reason string) bool { return slices.Contains(reasons, reason) }

// Check says what is wrong with the form of a record.
func (r *Release) Check() error {
	switch {
	case r.Kind != Kind:
		return fmt.Errorf("kind is %q, not %q", r.Kind, Kind)
	case len(r.Statement) == 0 || len(r.Statement) > MaxStatement:
		return fmt.Errorf("statement of %d bytes: 1 to %d", len(r.Statement), MaxStatement)
	case len(r.Signatures) == 0 || len(r.Signatures) > MaxSignatures:
		return fmt.Errorf("signatures of %d bytes: 1 to %d", len(r.Signatures), MaxSignatures)
	}
	return nil
}

// Check says what is wrong with the form of a record.
func (t *Trust) Check() error {
	switch {
	case t.Kind != Kind:
		return fmt.Errorf("kind is %q, not %q", t.Kind, Kind)
	case t.Version == 0:
		return errors.New("version is 0")
	case !isHash(t.SHA256):
		return errors.New("sha256 is not a SHA-256 in lower-case hex")
	}
	return nil
}

// Check says what is wrong with the form of a record.
func (b *Begin) Check() error {
	switch {
	case b.Kind != Kind:
		return fmt.Errorf("kind is %q, not %q", b.Kind, Kind)
	case !serverName.MatchString(b.Server):
		return fmt.Errorf("server %.80q is no name", b.Server)
	case b.Epoch == 0:
		return errors.New("epoch is 0")
	case b.Release == 0 || !isHash(b.ReleaseSHA256):
		return errors.New("release and release_sha256 are not a version and a SHA-256")
	case !isTime(b.Began) || !isTime(b.Deadline):
		return errors.New("began and deadline are not whole seconds in UTC")
	case !b.Began.Before(b.Deadline):
		return errors.New("deadline is not later than began")
	case !slices.Contains(evidences, b.Evidence):
		return fmt.Errorf("evidence is %.40q, none of %s", b.Evidence, strings.Join(evidences, ", "))
	case !isHash(b.TLSKey) || !isHash(b.HostKey):
		return errors.New("tls_key and host_key are not SHA-256 in lower-case hex")
	}
	return nil
}

// Check says what is wrong with the form of a record.
func (e *Extend) Check() error {
	switch {
	case e.Kind != Kind:
		return fmt.Errorf("kind is %q, not %q", e.Kind, Kind)
	case !serverName.MatchString(e.Server):
		return fmt.Errorf("server %.80q is no name", e.Server)
	case e.Epoch == 0:
		return errors.New("epoch is 0")
	case !isTime(e.Deadline):
		return errors.New("deadline is not whole seconds in UTC")
	case len(e.Statement) == 0 || len(e.Statement) > MaxStatement:
		return fmt.Errorf("statement of %d bytes: 1 to %d", len(e.Statement), MaxStatement)
	case len(e.Signatures) == 0 || len(e.Signatures) > MaxSignatures:
		return fmt.Errorf("signatures of %d bytes: 1 to %d", len(e.Signatures), MaxSignatures)
	}
	return nil
}

// Check says what is wrong with the form of a record.
func (e *End) Check() error {
	switch {
	case e.Kind != Kind:
		return fmt.Errorf("kind is %q, not %q", e.Kind, Kind)
	case !serverName.MatchString(e.Server):
		return fmt.Errorf("server %.80q is no name", e.Server)
	case e.Epoch == 0:
		return errors.New("epoch is 0")
	case !isTime(e.Ended):
		return errors.New("ended is not whole seconds in UTC")
	case !IsReason(e.Reason):
		return fmt.Errorf("reason is %.40q, none of %s", e.Reason, strings.Join(reasons, ", "))
	}
	return nil
}

func isTime(t time.Time) bool {
	return !t.IsZero() && t.Location() == time.UTC && t.Nanosecond() == 0
}

func isHash(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == sha256.Size && s == strings.ToLower(s)
}

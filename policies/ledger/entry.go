// Package ledger is the fleet's public record: which releases may run, and each life of each server. Its entries, the keys under which it
// is signed and cosigned, and the proof that one entry is in it are here, apart from rebuild and tunnel: the signer writes the ledger, a
// server hands over the proof of its own life, and the VPN client, which links nothing of rebuild, checks that. rebuild/ledger judges a
// whole ledger.
//
// The log is one of internal/audit. Its writer is fleetctl signer; docs/formats/ledger.md describes it for those who check it by other means.
//
// Files: entry.go (what is written), form.go (and in which form), key.go (whose signatures count), proof.go (one entry is in the log), life.go (and is the life of
// the server at the other end).
package ledger

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"mayfly/internal/inclusion"
)

// Specification constants.
const (
	// Kind of this format's version, the first field of every record.
	Kind = "mayfly-ledger/1"

	EventRelease = "release"    // Release: a release that people and builders signed
	EventTrust   = "trust"      // Trust: a trust policy that is in force from here on
	EventBegin   = "begin"      // Begin: a server's life
	EventEnd     = "end"        // End: of a life
	EventExtend  = "extend"     // Extend: approvers let a life go on
	EventTorn    = "audit_torn" // the log's own: after a crash, a record was not whole, and is not in the log

	// MaxEntry bounds an entry, in bytes (c2sp.org/tlog-tiles). MaxStatement and MaxSignatures bound what is in that of a release.
	MaxEntry      = 1<<16 - 1
	MaxStatement  = 16 << 10
	MaxSignatures = 32 << 10
)

// Evidence is what is known of a life's boot.
const (
	Attested   = "attested"   // a TPM that the inventory names quoted the firmware's measurements, the release and the ticket
	Claimed    = "claimed"    // the machine says so
	Unverified = "unverified" // a container, which has no boot of its own
)

// Reasons of an end.
const (
	Rotated    = "rotated"    // switched off, and read back as off
	Passed     = "deadline"   // it ended itself, as it has to, or could prove nothing any more
	Revoked    = "revoked"    // its ticket was used twice
	Failed     = "failed"     // it did not come up, or was taken out
	Superseded = "superseded" // the next life began, and nobody had said that this one was over
)

// Release is the record of a release: all that it takes to check it again. rebuild/release reads it when a machine boots.
type Release struct {
	Kind       string `json:"kind"`
	Statement  string `json:"statement"`  // release.json, exact bytes
	Signatures string `json:"signatures"` // armored blocks, of approvers and of builders: those that counted when it was logged
}

// Trust is the record of a trust policy.
type Trust struct {
	Kind    string `json:"kind"`
	Version uint64 `json:"version"`
	SHA256  string `json:"sha256"` // of trust.json
}

// Begin is the record of a server's life.
type Begin struct {
	Kind          string    `json:"kind"`
	Server        string    `json:"server"`
	Epoch         uint64    `json:"epoch"`
	Release       uint64    `json:"release"` // version
	ReleaseSHA256 string    `json:"release_sha256"`
	Began         time.Time `json:"began"`    // its ticket was made then: the machine booted this life no earlier
	Deadline      time.Time `json:"deadline"` // no certificate of it is valid later, and the machine ends itself
	Evidence      string    `json:"evidence"` // Attested, Claimed or Unverified
	TLSKey        string    `json:"tls_key"`  // SHA-256 of the Ed25519 key's 32 bytes
	HostKey       string    `json:"host_key"` // SHA-256 of the SSH host key's blob
}

// Extend is the record of a life that goes on beyond its deadline: all that it takes to check that approvers said so.
type Extend struct {
	Kind       string    `json:"kind"`
	Server     string    `json:"server"`
	Epoch      uint64    `json:"epoch"`
	Deadline   time.Time `json:"deadline"`   // the new one, as the statement says
	Statement  string    `json:"statement"`  // mayfly-extension/1, exact bytes
	Signatures string    `json:"signatures"` // armored blocks
}

// End is the record of a life's end.
type End struct {
	Kind   string    `json:"kind"`
	Server string    `json:"server"`
	Epoch  uint64    `json:"epoch"`
	Ended  time.Time `json:"ended"` // not later than this
	Reason string    `json:"reason"`
}

// Entry is one entry. Exactly one of the five is set, or none where the log itself notes that a crash left it something unfinished (EventTorn).
type Entry struct {
	Time    time.Time // by the signer's clock
	Event   string
	Release *Release
	Trust   *Trust
	Begin   *Begin
	End     *End
	Extend  *Extend
}

// Parse reads an entry as it is in the log, strictly: what it returns is written as the same bytes.
func Parse(text []byte) (Entry, error) {
	if len(text) > MaxEntry {
		return Entry{}, fmt.Errorf("entry of %d bytes, at most %d", len(text), MaxEntry)
	}
	raw, err := inclusion.ParseEntry(text)
	if err != nil {
		return Entry{}, err
	}
	e := Entry{Time: raw.Time, Event: raw.Event}
	switch raw.Event {
	case EventRelease:
		e.Release, err = parse[Release](raw.Record)
	case EventTrust:
		e.Trust, err = parse[Trust](raw.Record)
	case EventBegin:
		e.Begin, err = parse[Begin](raw.Record)
	case EventEnd:
		e.End, err = parse[End](raw.Record)
	case EventExtend:
		e.Extend, err = parse[Extend](raw.Record)
	case EventTorn:
	default:
		err = fmt.Errorf("an event that no ledger has")
	}
	if err != nil {
		return Entry{}, fmt.Errorf("entry %q: %w", raw.Event, err)
	}
	return e, nil
}

// record is what an entry is about.
type record interface{ Check() error }

func parse[R any, P interface {
	*R
	record
}](data []byte) (*R, error) {
	v := new(R)
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, fmt.Errorf("more after the record")
	}
	again, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, data) {
		return nil, fmt.Errorf("not in its one form")
	}
	return v, P(v).Check()
}

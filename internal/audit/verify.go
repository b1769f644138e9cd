package audit

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/mod/sumdb/note"

	"mayfly/internal/durable"
	"mayfly/internal/hint"
)

// ErrForged is what every error of Verify and VerifyProof is that speaks against the log, and not against how it was read.
var ErrForged = errors.New("the log does not hold")

func forged(format string, args ...any) error {
	return hint.New(fmt.Errorf("%w: %w", ErrForged, fmt.Errorf(format, args...)), "keep the directory as evidence")
}

// Trusted is what a verifier brings along.
type Trusted struct {
	Log       note.Verifier
	Against   []byte          // a checkpoint of the log that was kept elsewhere; may be nil
	Witnesses []note.Verifier // each must have cosigned
}

// Report is what Verify found.
type Report struct {
	Origin   string      `json:"origin"`
	Size     uint64      `json:"size"`
	Root     string      `json:"root"`           // base64
	Last     *time.Time  `json:"last,omitempty"` // time of the last signed record
	Unsigned int         `json:"unsigned"`       // durable records that no checkpoint covers yet
	Against  *uint64     `json:"against,omitempty"`
	Cosigned []Cosigning `json:"cosigned,omitempty"`
}

// Cosigning is one witness's word for the first Size records.
type Cosigning struct {
	Witness string    `json:"witness"`
	Size    uint64    `json:"size"`
	Time    time.Time `json:"time"`
}

// claim is a root hash that the log must have had at some size.
type claim struct {
	Checkpoint
	by string
}

// Verify reads a whole log and compares it with its checkpoint, trusting in nothing but the keys: every record is parsed and
// hashed again, and every tile must hold the hashes that follow. It may run while the log is being written.
func Verify(dir string, t Trusted) (Report, error) {
	data, err := durable.ReadRegular(filepath.Join(dir, checkpointFile), MaxCheckpoint)
	if missing(err) {
		return Report{}, hint.New(forged("there is no checkpoint in %s", dir), "name the directory of an audit log")
	}
	if err != nil {
		return Report{}, err
	}
	head, _, err := OpenCheckpoint(data, t.Log)
	if err != nil {
		return Report{}, hint.New(forged("checkpoint: %w", err), "is the key that of this log (a copy of its audit_key.pub)? If it is, keep the directory as evidence")
	}
	report := Report{Origin: head.Origin, Size: head.Size, Root: base64.StdEncoding.EncodeToString(head.Root[:])}
	claims := []claim{{head, "its checkpoint"}}
	if t.Against != nil {
		old, _, err := OpenCheckpoint(t.Against, t.Log)
		if err != nil { // a log that was begun anew, with a key of its own, shows in this alone
			return Report{}, hint.New(forged("the older checkpoint: %w", err), `is it a whole copy of this log's file "checkpoint"? If it is, the log has another key now: keep the directory as evidence`)
		}
		report.Against = &old.Size
		claims = append(claims, claim{old, "the older checkpoint"})
	}
	if len(t.Witnesses) > 0 {
		seen, cosigned, err := openWitnessed(dir, t)
		if err != nil {
			return Report{}, err
		}
		report.Cosigned = cosigned
		claims = append(claims, claim{seen, "the cosigned checkpoint"})
	}
	if report.Last, err = rehash(dir, head.Size, claims); err != nil {
		return Report{}, err
	}
	if report.Unsigned, err = countUnsigned(dir, head.Size); err != nil {
		return Report{}, err
	}
	return report, nil
}

// openWitnessed reads the checkpoint that every witness has cosigned.
func openWitnessed(dir string, t Trusted) (Checkpoint, []Cosigning, error) {
	data, err := durable.ReadRegular(filepath.Join(dir, witnessedFile), MaxCheckpoint)
	if missing(err) {
		return Checkpoint{}, nil, forged("no checkpoint is cosigned by the witnesses")
	}
	if err != nil {
		return Checkpoint{}, nil, err
	}
	return openCosigned(data, t)
}

func openCosigned(data []byte, t Trusted) (Checkpoint, []Cosigning, error) {
	c, by, err := OpenCheckpoint(data, t.Log, t.Witnesses...)
	if err != nil {
		return Checkpoint{}, nil, forged("cosigned checkpoint: %w", err)
	}
	var cosigned []Cosigning
	for _, w := range t.Witnesses {
		found := false
		for _, s := range by {
			if s.Name == w.Name() && s.Hash == w.KeyHash() && !found {
				at, err := cosignedAt(s)
				if err != nil {
					return Checkpoint{}, nil, forged("cosignature of %s: %w", w.Name(), err)
				}
				cosigned, found = append(cosigned, Cosigning{Witness: w.Name(), Size: c.Size, Time: at}), true
			}
		}
		if !found {
			return Checkpoint{}, nil, forged("witness %s has not cosigned", w.Name())
		}
	}
	return c, cosigned, nil
}

// rehash builds the tree anew and checks what is claimed of it.
func rehash(dir string, size uint64, claims []claim) (last *time.Time, err error) {
	for _, c := range claims {
		if c.Size > size {
			return nil, forged("the log has %d records and %s is of %d: it was cut off", size, c.by, c.Size)
		}
	}
	var t tree
	var problem error
	compare := func(made tile) {
		if made.entries || problem != nil {
			return
		}
		stored, err := made.read(dir)
		switch {
		case err != nil:
			problem = forged("%s: %w", made.path(), err)
		case len(stored) < len(made.data) || !bytes.Equal(stored[:len(made.data)], made.data):
			problem = forged("%s does not hold the hashes of the records", made.path())
		}
	}
	check := func() error {
		for _, c := range claims {
			if c.Size == t.size && c.Root != t.root() {
				return forged("the first %d records are not those that %s is about", c.Size, c.by)
			}
		}
		return problem
	}
	if err := check(); err != nil {
		return nil, err
	}
	_, err = readBundles(dir, 0, size, func(index uint64, text []byte) error {
		e, err := ParseEntry(text)
		if err != nil {
			return forged("record %d: %w", index, err)
		}
		last = &e.Time
		t.add(text, compare)
		return check()
	})
	if err == nil {
		for _, made := range t.edge() {
			compare(made)
		}
		err = problem
	}
	if err != nil && !errors.Is(err, ErrForged) {
		err = forged("after %d records: %w", t.size, err)
	}
	return last, err
}

// countUnsigned counts what the journal holds beyond the checkpoint. While the log is being written the journal may be tidied
// meanwhile: then all that the checkpoint did not cover is covered by now.
func countUnsigned(dir string, size uint64) (int, error) {
	left, err := replay(dir, size)
	if err != nil {
		now, again := claimedSize(dir)
		if again == nil && now > size {
			return int(now - size), nil
		}
		return 0, forged("%w", err)
	}
	return len(left.entries), nil
}

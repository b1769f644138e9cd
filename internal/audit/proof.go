package audit

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/mod/sumdb/tlog"

	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/internal/inclusion"
)

// MaxProof bounds a proof, in bytes.
const MaxProof = inclusion.MaxProof

// Proof shows by itself, and a key, that a record is in a log.
type Proof = inclusion.Proof

// ParseProof reads what Marshal writes. It checks the form alone.
func ParseProof(data []byte) (Proof, error) { return inclusion.ParseProof(data) }

// Proven is what a proof shows.
type Proven struct {
	Index    uint64      `json:"index"`
	Entry    Entry       `json:"entry"`
	Origin   string      `json:"origin"`
	Size     uint64      `json:"size"` // of the log, by the proof's checkpoint
	Cosigned []Cosigning `json:"cosigned,omitempty"`
}

// Prove makes the proof of one record, from a checkpoint that the witnesses cosigned if it covers the record.
func Prove(dir string, index uint64) (Proof, error) {
	for _, name := range []string{witnessedFile, checkpointFile} {
		data, err := durable.ReadRegular(filepath.Join(dir, name), MaxCheckpoint)
		if missing(err) && name == witnessedFile {
			continue
		}
		if err != nil {
			return Proof{}, err
		}
		c, err := claimed(data)
		if err != nil {
			return Proof{}, err
		}
		if index < c.Size {
			return prove(dir, index, c, data)
		}
	}
	return Proof{}, hint.New(fmt.Errorf("no checkpoint covers record %d", index), "records are numbered from 0 and signed within a second")
}

func prove(dir string, index uint64, c Checkpoint, signed []byte) (Proof, error) {
	p := Proof{Index: index, Checkpoint: signed}
	stop := errors.New("found")
	_, err := readBundles(dir, index, c.Size, func(_ uint64, text []byte) error { p.Entry = bytes.Clone(text); return stop })
	if !errors.Is(err, stop) {
		return Proof{}, err
	}
	reader := tlog.TileHashReader(tlog.Tree{N: int64(c.Size), Hash: c.Root}, tileReader{dir})
	p.Hashes, err = tlog.ProveRecord(int64(c.Size), int64(index), reader)
	return p, err
}

// VerifyProof checks a proof by the keys alone. t.Against has no part in it.
func VerifyProof(data []byte, t Trusted) (Proven, error) {
	p, err := ParseProof(data)
	if err != nil {
		return Proven{}, forged("%w", err)
	}
	c, cosigned, err := openCosigned(p.Checkpoint, t)
	if err != nil {
		return Proven{}, err
	}
	if err := p.Leads(c); err != nil {
		return Proven{}, forged("%w", err)
	}
	e, err := ParseEntry(p.Entry)
	if err != nil {
		return Proven{}, forged("%w", err)
	}
	return Proven{Index: p.Index, Entry: e, Origin: c.Origin, Size: c.Size, Cosigned: cosigned}, nil
}

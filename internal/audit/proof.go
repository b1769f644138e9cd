package audit

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"mayfly/internal/durable"
	"mayfly/internal/hint"
)

// Specification constants: c2sp.org/tlog-proof.
const (
	proofHeader = "c2sp.org/tlog-proof@v1"
	MaxProof    = 1 << 18
	maxHashes   = 63
)

// Proof shows by itself, and a key, that a record is in a log.
type Proof struct {
	Index      uint64
	Entry      []byte // carried as the format's extra data
	Hashes     []tlog.Hash
	Checkpoint []byte // with its signatures
}

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
		data, err := durable.ReadFile(filepath.Join(dir, name), MaxCheckpoint)
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

// Marshal writes a proof as c2sp.org/tlog-proof, with the record as the extra data.
func (p Proof) Marshal() []byte {
	b := fmt.Appendf(nil, "%s\nextra %s\nindex %d\n", proofHeader, base64.StdEncoding.EncodeToString(p.Entry), p.Index)
	for _, h := range p.Hashes {
		b = fmt.Appendf(b, "%s\n", base64.StdEncoding.EncodeToString(h[:]))
	}
	return append(append(b, '\n'), p.Checkpoint...)
}

// ParseProof reads what Marshal writes. It checks the form alone.
func ParseProof(data []byte) (Proof, error) {
	if len(data) > MaxProof {
		return Proof{}, fmt.Errorf("not a proof: longer than %d bytes", MaxProof)
	}
	head, checkpoint, found := strings.Cut(string(data), "\n\n")
	lines := strings.Split(head, "\n")
	if !found || len(lines) < 3 || lines[0] != proofHeader {
		return Proof{}, errors.New("not a proof: want " + proofHeader)
	}
	extra, ok := strings.CutPrefix(lines[1], "extra ")
	entry, err := base64.StdEncoding.DecodeString(extra)
	if !ok || err != nil {
		return Proof{}, errors.New("not a proof: want the record in base64 after \"extra\"")
	}
	number, ok := strings.CutPrefix(lines[2], "index ")
	index, err := strconv.ParseUint(number, 10, 63)
	if !ok || err != nil {
		return Proof{}, errors.New("not a proof: want a number after \"index\"")
	}
	p := Proof{Index: index, Entry: entry, Checkpoint: []byte(checkpoint)}
	if len(lines)-3 > maxHashes {
		return Proof{}, fmt.Errorf("not a proof: more than %d hashes", maxHashes)
	}
	for _, line := range lines[3:] {
		h, err := base64.StdEncoding.DecodeString(line)
		if err != nil || len(h) != tlog.HashSize {
			return Proof{}, errors.New("not a proof: a hash is not 32 bytes of base64")
		}
		p.Hashes = append(p.Hashes, tlog.Hash(h))
	}
	if !bytes.Equal(p.Marshal(), data) {
		return Proof{}, errors.New("not a proof: not in its one form")
	}
	return p, nil
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
	if p.Index >= c.Size {
		return Proven{}, forged("record %d is not among the %d of the checkpoint", p.Index, c.Size)
	}
	if err := tlog.CheckRecord(p.Hashes, int64(c.Size), c.Root, int64(p.Index), tlog.RecordHash(p.Entry)); err != nil {
		return Proven{}, forged("the proof does not lead from the record to the checkpoint: %w", err)
	}
	e, err := ParseEntry(p.Entry)
	if err != nil {
		return Proven{}, forged("%w", err)
	}
	return Proven{Index: p.Index, Entry: e, Origin: c.Origin, Size: c.Size, Cosigned: cosigned}, nil
}

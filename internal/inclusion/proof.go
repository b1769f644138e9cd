// Package inclusion is a proof that a record is in a log (c2sp.org/tlog-proof), and the head of the log that it leads to
// (c2sp.org/tlog-checkpoint): small, so that a machine that boots can check one. internal/audit writes such logs.
package inclusion

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
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

// Leads reports why the proof does not lead from its record to a checkpoint that is believed.
func (p Proof) Leads(c Checkpoint) error {
	if p.Index >= c.Size {
		return fmt.Errorf("record %d is not among the %d of the checkpoint", p.Index, c.Size)
	}
	if err := tlog.CheckRecord(p.Hashes, int64(c.Size), c.Root, int64(p.Index), tlog.RecordHash(p.Entry)); err != nil {
		return fmt.Errorf("the proof does not lead from the record to the checkpoint: %w", err)
	}
	return nil
}

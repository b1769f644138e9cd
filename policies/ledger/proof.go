package ledger

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"mayfly/internal/inclusion"
)

// Reason codes of refused proofs.
const (
	Unlogged = "unlogged"  // no proof that leads from the entry to a checkpoint of the ledger
	Split    = "log_split" // the checkpoint is not cosigned by enough witnesses: others may be shown another ledger
)

// Refusal is why a proof is not believed.
type Refusal struct {
	Reason string
	Err    error
}

func (r *Refusal) Error() string { return r.Reason + ": " + r.Err.Error() }

// Unwrap returns the detail.
func (r *Refusal) Unwrap() error { return r.Err }

// Refused makes a program exit with "refused by policy".
func (r *Refusal) Refused() bool { return true }

func refuse(reason, format string, args ...any) error {
	return &Refusal{Reason: reason, Err: fmt.Errorf(format, args...)}
}

// Head is a checkpoint that was believed.
type Head struct {
	inclusion.Checkpoint
	Cosigned []Cosigned // sorted by the witness's name, each once
}

// Cosigned is a witness's signature.
type Cosigned struct {
	Witness string    `json:"witness"`
	Time    time.Time `json:"time"` // by its clock
}

// Checkpoint reads a checkpoint of the ledger that enough witnesses cosigned. Its error is a *Refusal.
func (k Keys) Checkpoint(data []byte) (Head, error) {
	h, err := k.Signed(data)
	if err == nil && (k.Threshold < 0 || len(h.Cosigned) < k.Threshold) {
		return Head{}, refuse(Split, "%d witnesses cosigned the checkpoint, %d are needed: others may be shown another ledger", len(h.Cosigned), k.Threshold)
	}
	return h, err
}

// Signed is Checkpoint, however many witnesses cosigned it.
func (k Keys) Signed(data []byte) (Head, error) {
	c, by, err := inclusion.Open(data, k.Ledger, k.Witnesses)
	if err != nil {
		return Head{}, &Refusal{Unlogged, err}
	}
	h := Head{Checkpoint: c}
	for _, v := range by {
		if !slices.ContainsFunc(h.Cosigned, func(c Cosigned) bool { return c.Witness == v.Name() }) {
			h.Cosigned = append(h.Cosigned, Cosigned{v.Name(), cosignedAt(data, v)})
		}
	}
	slices.SortFunc(h.Cosigned, func(a, b Cosigned) int { return strings.Compare(a.Witness, b.Witness) })
	return h, nil
}

// cosignedAt is the time of a witness's signature (c2sp.org/tlog-cosignature), which is under the checkpoint.
func cosignedAt(data []byte, v note.Verifier) time.Time {
	end := bytes.LastIndex(data, []byte("\n\n"))
	for line := range strings.Lines(string(data[end+2:])) {
		rest, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "— "+v.Name()+" ")
		raw, err := base64.StdEncoding.DecodeString(rest)
		if ok && err == nil && len(raw) > 12 && binary.BigEndian.Uint32(raw) == v.KeyHash() && v.Verify(data[:end+1], raw[4:]) {
			return time.Unix(int64(binary.BigEndian.Uint64(raw[4:])), 0).UTC()
		}
	}
	return time.Time{}
}

// Proven is an entry that is in the ledger.
type Proven struct {
	Index uint64
	Entry Entry
	Head  Head
}

// Open reads the proof (internal/inclusion) that an entry is in the ledger, by the keys alone. Its error is a *Refusal.
func (k Keys) Open(proof []byte) (Proven, error) {
	p, err := inclusion.ParseProof(proof)
	if err != nil {
		return Proven{}, &Refusal{Unlogged, err}
	}
	h, err := k.Checkpoint(p.Checkpoint)
	if err != nil {
		return Proven{}, err
	}
	if err := p.Leads(h.Checkpoint); err != nil {
		return Proven{}, &Refusal{Unlogged, err}
	}
	e, err := Parse(p.Entry)
	if err != nil {
		return Proven{}, &Refusal{Unlogged, err}
	}
	return Proven{p.Index, e, h}, nil
}

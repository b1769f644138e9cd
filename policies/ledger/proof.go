package ledger

import (
	"fmt"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"mayfly/internal/audit"
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
	audit.Checkpoint
	Cosigned []Cosigned // by whom, in the order of the keys
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
		return Head{}, refuse(Split, "cosigned by %d witnesses, %d are needed", len(h.Cosigned), k.Threshold)
	}
	return h, err
}

// Signed is Checkpoint, however many witnesses cosigned it.
func (k Keys) Signed(data []byte) (Head, error) {
	if len(data) > audit.MaxCheckpoint {
		return Head{}, refuse(Unlogged, "a checkpoint of %d bytes, at most %d", len(data), audit.MaxCheckpoint)
	}
	if len(k.Ledger) == 0 {
		return Head{}, refuse(Unlogged, "no ledger key is trusted")
	}
	var others []note.Verifier
	for _, w := range k.Witnesses {
		others = append(others, w.Keys...)
	}
	var last error
	for _, v := range k.Ledger {
		c, by, err := audit.OpenCheckpoint(data, v, others...)
		if err != nil {
			last = err
			continue
		}
		h := Head{Checkpoint: c}
		for _, w := range k.Witnesses {
			i := slices.IndexFunc(by, func(s note.Signature) bool {
				return slices.ContainsFunc(w.Keys, func(v note.Verifier) bool { return v.Name() == s.Name && v.KeyHash() == s.Hash })
			})
			if i < 0 {
				continue
			}
			at, err := audit.CosignedAt(by[i])
			if err != nil {
				return Head{}, refuse(Unlogged, "cosignature of %s: %v", w.Name, err)
			}
			h.Cosigned = append(h.Cosigned, Cosigned{w.Name, at})
		}
		return h, nil
	}
	return Head{}, refuse(Unlogged, "checkpoint: %v", last)
}

// Proven is an entry that is in the ledger.
type Proven struct {
	Index uint64
	Entry Entry
	Head  Head
}

// Open reads the proof (audit.Proof) that an entry is in the ledger, by the keys alone. Its error is a *Refusal.
func (k Keys) Open(proof []byte) (Proven, error) {
	p, err := audit.ParseProof(proof)
	if err != nil {
		return Proven{}, refuse(Unlogged, "%v", err)
	}
	h, err := k.Checkpoint(p.Checkpoint)
	if err != nil {
		return Proven{}, err
	}
	if p.Index >= h.Size || h.Size >= 1<<62 {
		return Proven{}, refuse(Unlogged, "entry %d is not among the %d of the checkpoint", p.Index, h.Size)
	}
	if err := tlog.CheckRecord(p.Hashes, int64(h.Size), h.Root, int64(p.Index), tlog.RecordHash(p.Entry)); err != nil {
		return Proven{}, refuse(Unlogged, "the proof does not lead from the entry to the checkpoint: %v", err)
	}
	e, err := Parse(p.Entry)
	if err != nil {
		return Proven{}, refuse(Unlogged, "%v", err)
	}
	return Proven{p.Index, e, h}, nil
}

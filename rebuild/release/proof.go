package release

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"mayfly/internal/inclusion"
	"mayfly/policies/ledger"
	"mayfly/policies/trust"
)

// Reason codes of releases that the fleet's public ledger does not show.
const (
	Unlogged     = "release_unlogged" // no proof, or one of something else than that this release is in this fleet's ledger
	LogSplit     = "log_split"        // the proof does not lead to its checkpoint, or too few witnesses have seen that
	LogMalformed = "log_malformed"    // no proof, checkpoint or record by its form
)

// Proven is what a proof shows.
type Proven struct {
	Origin    string    `json:"origin"`
	Index     uint64    `json:"index"`
	Size      uint64    `json:"size"`      // of the log, by the checkpoint
	Time      time.Time `json:"time"`      // of the record, as the ledger's writer says
	Witnesses []string  `json:"witnesses"` // who cosigned the checkpoint, sorted
}

// CheckProof reports, as a *Refusal, that proof does not show that the statement is in the fleet's public ledger under a checkpoint that as many
// witnesses cosigned as the trust policy asks. Where a test fleet has no ledger nothing is asked.
func CheckProof(t *trust.Trust, statement, proof []byte) error {
	_, err := ReadProof(t, statement, proof)
	return err
}

// ReadProof is CheckProof, and tells what the proof shows: nothing for a test fleet without a ledger.
func ReadProof(t *trust.Trust, statement, proof []byte) (*Proven, error) {
	if t == nil || t.Fleet == "" || len(t.LedgerKeys) == 0 && !t.Test {
		return nil, refuse(Unlogged, "no trust policy that names a ledger")
	}
	if len(t.LedgerKeys) == 0 {
		return nil, nil
	}
	if len(proof) == 0 {
		return nil, refuse(Unlogged, "there is no proof that the ledger holds it")
	}
	p, err := inclusion.ParseProof(proof)
	if err != nil {
		return nil, &Refusal{Reason: LogMalformed, Err: err}
	}
	keys, err := ledger.KeysOf(t)
	if err != nil {
		return nil, &Refusal{Reason: Unlogged, Err: err}
	}
	head, err := keys.Signed(p.Checkpoint)
	switch {
	case errors.Is(err, inclusion.ErrUnsigned):
		return nil, refuse(Unlogged, "%w: the log is not %s", err, ledger.Origin(t.Fleet))
	case err != nil:
		return nil, &Refusal{Reason: LogMalformed, Err: err}
	}
	if err := p.Leads(head.Checkpoint); err != nil {
		return nil, &Refusal{Reason: LogSplit, Err: err}
	}
	e, err := ledger.Parse(p.Entry)
	switch {
	case err != nil:
		return nil, &Refusal{Reason: LogMalformed, Err: fmt.Errorf("record %d: %w", p.Index, err)}
	case e.Release == nil:
		return nil, refuse(Unlogged, "record %d of the ledger is a %q", p.Index, e.Event)
	case e.Release.Statement != string(statement):
		return nil, refuse(Unlogged, "record %d of the ledger is another release", p.Index)
	}
	proven := &Proven{Origin: head.Origin, Index: p.Index, Size: head.Size, Time: e.Time}
	for _, c := range head.Cosigned {
		proven.Witnesses = append(proven.Witnesses, c.Witness)
	}
	if len(head.Cosigned) < keys.Threshold {
		return nil, refuse(LogSplit, "%d witnesses cosigned the checkpoint (%s), %d are needed: others may be shown another ledger", len(head.Cosigned), strings.Join(proven.Witnesses, ", "), keys.Threshold)
	}
	return proven, nil
}

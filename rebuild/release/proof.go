package release

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/mod/sumdb/note"

	"mayfly/internal/inclusion"
	"mayfly/policies/trust"
	"mayfly/policies/witness"
)

// Reason codes of releases that the fleet's public ledger does not show.
const (
	Unlogged     = "release_unlogged" // no proof, or one of something else than that this release is in this fleet's ledger
	LogSplit     = "log_split"        // the proof does not lead to its checkpoint, or too few witnesses have seen that
	LogMalformed = "log_malformed"    // no proof, checkpoint or record by its form
)

// LedgerEvent is the event of a release's record in the fleet's ledger.
const LedgerEvent = "release"

// LedgerKind is the kind of the ledger's records.
const LedgerKind = "mayfly-ledger/1"

// Logged is the record of a release in the ledger, which says everything that it takes to check it again.
type Logged struct {
	Kind       string `json:"kind"`       // "mayfly-ledger/1"
	Statement  string `json:"statement"`  // the exact bytes of release.json
	Signatures string `json:"signatures"` // the blocks of release.json.sig that counted when it was logged
}

// Proven is what a proof shows.
type Proven struct {
	Origin    string    `json:"origin"`
	Index     uint64    `json:"index"`
	Size      uint64    `json:"size"`      // of the log, by the checkpoint
	Time      time.Time `json:"time"`      // of the record, as the ledger's writer says
	Witnesses []string  `json:"witnesses"` // who cosigned the checkpoint, sorted
}

// LedgerOrigin is the name of a fleet's public ledger.
func LedgerOrigin(fleet string) string { return "mayfly/" + fleet + "/ledger" }

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
	c, names, err := openCheckpoint(t, p.Checkpoint)
	if err != nil {
		return nil, err
	}
	if err := p.Leads(c); err != nil {
		return nil, &Refusal{Reason: LogSplit, Err: err}
	}
	e, err := inclusion.ParseEntry(p.Entry)
	if err != nil {
		return nil, &Refusal{Reason: LogMalformed, Err: err}
	}
	if e.Event != LedgerEvent {
		return nil, refuse(Unlogged, "record %d of the ledger is a %q", p.Index, e.Event)
	}
	logged, err := parseLogged(e.Record)
	if err != nil {
		return nil, &Refusal{Reason: LogMalformed, Err: fmt.Errorf("record %d: %w", p.Index, err)}
	}
	if logged.Statement != string(statement) {
		return nil, refuse(Unlogged, "record %d of the ledger is another release", p.Index)
	}
	// A threshold below one comes from a zero value, unless it is a test fleet's.
	if t.WitnessThreshold < 0 || t.WitnessThreshold == 0 && !t.Test || len(names) < t.WitnessThreshold {
		return nil, refuse(LogSplit, "%d witnesses cosigned the checkpoint (%q), %d are needed: others may be shown another ledger", len(names), names, max(t.WitnessThreshold, 1))
	}
	return &Proven{Origin: c.Origin, Index: p.Index, Size: c.Size, Time: e.Time, Witnesses: names}, nil
}

// openCheckpoint reads a checkpoint of the fleet's ledger, and who of the witnesses cosigned it: people, whatever number of keys they have.
func openCheckpoint(t *trust.Trust, data []byte) (inclusion.Checkpoint, []string, error) {
	var logs, others []note.Verifier
	for _, line := range t.LedgerKeys {
		v, err := LedgerVerifier(t.Fleet, line)
		if err != nil {
			return inclusion.Checkpoint{}, nil, &Refusal{Reason: Unlogged, Err: err}
		}
		logs = append(logs, v)
	}
	for _, w := range t.Witnesses {
		for _, line := range w.Keys {
			if v, err := witness.NewCosigner(w.Name, line); err == nil { // a key of another type cosigns nothing
				others = append(others, v)
			}
		}
	}
	c, by, err := inclusion.Open(data, logs, others)
	if errors.Is(err, inclusion.ErrUnsigned) {
		return c, nil, refuse(Unlogged, "%w: the log is not %s", err, LedgerOrigin(t.Fleet))
	}
	if err != nil {
		return c, nil, &Refusal{Reason: LogMalformed, Err: err}
	}
	names := []string{}
	for _, v := range by {
		if !slices.Contains(names, v.Name()) {
			names = append(names, v.Name())
		}
	}
	slices.Sort(names)
	return c, names, nil
}

// LedgerVerifier is the verifier of the ledger's checkpoints under a key as trust.json has it.
func LedgerVerifier(fleet, line string) (note.Verifier, error) {
	key, err := trust.ParseKey(line)
	if err != nil {
		return nil, fmt.Errorf("ledger key: %w", err)
	}
	crypto, ok := key.(ssh.CryptoPublicKey)
	if !ok {
		return nil, fmt.Errorf("ledger key: of type %s", key.Type())
	}
	public, ok := crypto.CryptoPublicKey().(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("ledger key: of type %s", key.Type())
	}
	text, err := note.NewEd25519VerifierKey(LedgerOrigin(fleet), public)
	if err != nil {
		return nil, fmt.Errorf("ledger key: %w", err)
	}
	return note.NewVerifier(text)
}

// parseLogged reads the record of a release: compact JSON with these fields in this order and no others, so that nobody reads another statement in it.
func parseLogged(record []byte) (Logged, error) {
	var l Logged
	dec := json.NewDecoder(bytes.NewReader(record))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&l); err != nil {
		return Logged{}, fmt.Errorf("not a record of a release: %w", err)
	}
	if again, err := json.Marshal(l); err != nil || !bytes.Equal(again, record) {
		return Logged{}, errors.New("not a record of a release: not in its one form")
	}
	if l.Kind != LedgerKind {
		return Logged{}, fmt.Errorf("kind is %q, not %q", l.Kind, LedgerKind)
	}
	return l, nil
}

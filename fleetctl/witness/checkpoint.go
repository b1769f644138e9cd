package witness

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"mayfly/policies/ledger"
	"mayfly/policies/witness"
)

// Bounds of an add-checkpoint request (c2sp.org/tlog-witness).
const (
	maxProof      = 63       // hashes: no tree is higher
	maxCheckpoint = 64 << 10 // bytes of a request
)

// addRequest is an add-checkpoint request.
type addRequest struct {
	old   int64
	proof tlog.TreeProof
	note  []byte
}

// parseAdd reads an add-checkpoint request: "old SIZE", the consistency proof, an empty line, and the checkpoint with its signatures.
func parseAdd(data []byte) (addRequest, error) {
	head, signed, ok := bytes.Cut(data, []byte("\n\n"))
	if !ok || len(data) > maxCheckpoint {
		return addRequest{}, errors.New("no empty line before the checkpoint")
	}
	lines := strings.Split(string(head), "\n")
	text, ok := strings.CutPrefix(lines[0], "old ")
	old, err := strconv.ParseInt(text, 10, 64)
	if !ok || err != nil || old < 0 || strconv.FormatInt(old, 10) != text {
		return addRequest{}, errors.New(`the first line is not "old" and a size`)
	}
	r := addRequest{old: old, note: signed}
	if len(lines)-1 > maxProof {
		return addRequest{}, fmt.Errorf("a proof of %d hashes: at most %d", len(lines)-1, maxProof)
	}
	for _, line := range lines[1:] {
		hash, err := base64.StdEncoding.Strict().DecodeString(line)
		if err != nil || len(hash) != tlog.HashSize {
			return addRequest{}, fmt.Errorf("line %.64q of the proof is no hash in base64", line)
		}
		r.proof = append(r.proof, tlog.Hash(hash))
	}
	return r, nil
}

// stale is a conflict with the size that is known, which the specification wants in an answer of its own.
type stale struct{ size int64 }

func (s *stale) Error() string { return fmt.Sprintf("checkpoint_stale: size %d is known", s.size) }

// AddCheckpoint cosigns a log's checkpoint, if the log's key signed it and nothing that an earlier one had is missing or other in it.
func (w *Witness) AddCheckpoint(data []byte, now time.Time) (line []byte, err error) {
	r, err := parseAdd(data)
	if err != nil {
		return nil, refuse(400, "checkpoint_malformed", "%v", err)
	}
	origin, _, _ := strings.Cut(string(r.note), "\n")
	keys, err := w.keysOf(origin)
	if err != nil {
		return nil, err
	}
	if len(keys) == 0 {
		return nil, refuse(404, "log_unknown", "no log %.128q is listed here", origin)
	}
	opened, err := note.Open(r.note, note.VerifierList(keys...))
	if unverified := (*note.UnverifiedNoteError)(nil); errors.As(err, &unverified) {
		return nil, refuse(403, "checkpoint_unsigned", "no key of the log signed it")
	}
	if invalid := (*note.InvalidSignatureError)(nil); errors.As(err, &invalid) {
		return nil, refuse(403, "checkpoint_unsigned", "%v", err)
	}
	if err != nil {
		return nil, refuse(400, "checkpoint_malformed", "%v", err)
	}
	next, err := witness.ParseCheckpoint(opened.Text)
	if err != nil {
		return nil, refuse(400, "checkpoint_malformed", "%v", err)
	}
	if r.old > next.Size {
		return nil, refuse(400, "checkpoint_malformed", "old size %d is larger than the checkpoint's %d", r.old, next.Size)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	known, err := w.memory.log(origin)
	if err != nil {
		return nil, err
	}
	if r.old != known.Size {
		return nil, &stale{known.Size}
	}
	if err := w.continues(known, next, r.proof); err != nil {
		return nil, err
	}
	if next != known {
		if err := w.memory.rememberLog(next); err != nil {
			return nil, err
		}
	}
	return witness.Cosign(w.signer, w.name, opened.Text, now)
}

// keysOf are the keys of a log that this witness cosigns: a listed one, or the ledger of its fleet, whose keys the trust policy names.
func (w *Witness) keysOf(origin string) (keys []note.Verifier, err error) {
	add := func(v note.Verifier) {
		if v.Name() == origin && !slices.ContainsFunc(keys, func(k note.Verifier) bool { return k.KeyHash() == v.KeyHash() }) {
			keys = append(keys, v)
		}
	}
	for _, v := range w.logs {
		add(v)
	}
	if origin != ledger.Origin(w.trust.Fleet) {
		return keys, nil
	}
	now, _, err := w.follow()
	if err != nil {
		w.log.Error("the trust policy cannot be followed", "error", err)
		return nil, refuse(503, "trust_not_followed", "%v", err)
	}
	for _, line := range now.LedgerKeys {
		v, err := ledger.Verifier(now.Fleet, line)
		if err != nil {
			return nil, err
		}
		add(v)
	}
	return keys, nil
}

// continues checks that the next checkpoint has everything that the known one had.
func (w *Witness) continues(known, next witness.Checkpoint, proof tlog.TreeProof) error {
	switch {
	case next.Size == known.Size && next.Root != known.Root && known.Size > 0:
		w.log.Error("A LOG HAS TWO HISTORIES: two checkpoints of one size have different roots", "log", next.Origin, "size", next.Size)
		return &stale{known.Size}
	case known.Size == 0 || next.Size == known.Size:
		if len(proof) > 0 {
			return refuse(422, "checkpoint_inconsistent", "a proof where there is nothing to prove")
		}
		return nil
	}
	if err := tlog.CheckTree(proof, next.Size, tlog.Hash(next.Root), known.Size, tlog.Hash(known.Root)); err != nil {
		w.log.Error("a log did not prove that it only grew", "log", next.Origin, "from", known.Size, "to", next.Size)
		return refuse(422, "checkpoint_inconsistent", "%v", err)
	}
	return nil
}

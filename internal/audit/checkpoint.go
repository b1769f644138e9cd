package audit

import (
	"fmt"

	"golang.org/x/mod/sumdb/note"

	"mayfly/internal/inclusion"
)

// MaxCheckpoint bounds a checkpoint with its signatures, in bytes.
const MaxCheckpoint = inclusion.MaxCheckpoint

// Checkpoint is the head of a log: c2sp.org/tlog-checkpoint.
type Checkpoint = inclusion.Checkpoint

// OpenCheckpoint reads a checkpoint that the log signed, and says which of others signed it as well.
func OpenCheckpoint(data []byte, log note.Verifier, others ...note.Verifier) (Checkpoint, []note.Signature, error) {
	n, err := note.Open(data, note.VerifierList(append([]note.Verifier{log}, others...)...))
	if err != nil {
		return Checkpoint{}, nil, err
	}
	var by []note.Signature
	signed := false
	for _, s := range n.Sigs {
		if s.Name == log.Name() && s.Hash == log.KeyHash() {
			signed = true
		} else {
			by = append(by, s)
		}
	}
	if !signed {
		return Checkpoint{}, nil, fmt.Errorf("checkpoint is not signed by %s", log.Name())
	}
	c, err := inclusion.ParseCheckpoint(n.Text)
	if err != nil {
		return Checkpoint{}, nil, err
	}
	if c.Origin != log.Name() {
		return Checkpoint{}, nil, fmt.Errorf("checkpoint is of another log, %q", c.Origin)
	}
	return c, by, nil
}

func signCheckpoint(c Checkpoint, signer note.Signer) ([]byte, error) {
	return note.Sign(&note.Note{Text: c.Text()}, signer)
}

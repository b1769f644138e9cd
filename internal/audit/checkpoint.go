package audit

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// MaxCheckpoint bounds a checkpoint with its signatures, in bytes.
const MaxCheckpoint = 64 << 10

// Checkpoint is the head of a log: c2sp.org/tlog-checkpoint.
type Checkpoint struct {
	Origin string
	Size   uint64
	Root   tlog.Hash
	Extra  string // extension lines, each with its line break
}

// text is what is signed.
func (c Checkpoint) text() string {
	return fmt.Sprintf("%s\n%d\n%s\n%s", c.Origin, c.Size, base64.StdEncoding.EncodeToString(c.Root[:]), c.Extra)
}

// parseCheckpoint reads what is signed; it must be as text writes it.
func parseCheckpoint(text string) (Checkpoint, error) {
	lines := strings.SplitN(text, "\n", 4)
	if len(lines) != 4 {
		return Checkpoint{}, errors.New("malformed checkpoint: want origin, size and root hash")
	}
	c := Checkpoint{Origin: lines[0], Extra: lines[3]}
	size, err := strconv.ParseUint(lines[1], 10, 63)
	if err != nil {
		return Checkpoint{}, errors.New("malformed checkpoint: its size is no number")
	}
	c.Size = size
	root, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || len(root) != tlog.HashSize {
		return Checkpoint{}, errors.New("malformed checkpoint: its root hash is not 32 bytes of base64")
	}
	copy(c.Root[:], root)
	if c.Origin == "" || c.text() != text {
		return Checkpoint{}, errors.New("malformed checkpoint: not in its one form")
	}
	return c, nil
}

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
	c, err := parseCheckpoint(n.Text)
	if err != nil {
		return Checkpoint{}, nil, err
	}
	if c.Origin != log.Name() {
		return Checkpoint{}, nil, fmt.Errorf("checkpoint is of another log, %q", c.Origin)
	}
	return c, by, nil
}

func (c Checkpoint) sign(signer note.Signer) ([]byte, error) {
	return note.Sign(&note.Note{Text: c.text()}, signer)
}

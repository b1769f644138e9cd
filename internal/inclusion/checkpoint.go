package inclusion

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// MaxCheckpoint bounds a checkpoint with its signatures, in bytes.
const MaxCheckpoint = 64 << 10

// Bounds of the lines under a checkpoint.
const (
	maxLines  = 256 // signatures that are looked at; more refuse the whole
	keyIDSize = 4
)

// Why a checkpoint is not one of a log.
var (
	ErrMalformed = errors.New("malformed checkpoint")
	ErrUnsigned  = errors.New("no key of the log signed the checkpoint")
)

// Checkpoint is the head of a log: c2sp.org/tlog-checkpoint.
type Checkpoint struct {
	Origin string
	Size   uint64
	Root   tlog.Hash
	Extra  string // extension lines, each with its line break
}

// Text is what is signed.
func (c Checkpoint) Text() string {
	return fmt.Sprintf("%s\n%d\n%s\n%s", c.Origin, c.Size, base64.StdEncoding.EncodeToString(c.Root[:]), c.Extra)
}

// ParseCheckpoint reads what is signed; it must be as Text writes it.
func ParseCheckpoint(text string) (Checkpoint, error) {
	lines := strings.SplitN(text, "\n", 4)
	if len(lines) != 4 {
		return Checkpoint{}, fmt.Errorf("%w: want origin, size and root hash", ErrMalformed)
	}
	c := Checkpoint{Origin: lines[0], Extra: lines[3]}
	size, err := strconv.ParseUint(lines[1], 10, 63)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("%w: its size is no number", ErrMalformed)
	}
	c.Size = size
	root, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || len(root) != tlog.HashSize {
		return Checkpoint{}, fmt.Errorf("%w: its root hash is not 32 bytes of base64", ErrMalformed)
	}
	copy(c.Root[:], root)
	if c.Origin == "" || c.Text() != text {
		return Checkpoint{}, fmt.Errorf("%w: not in its one form", ErrMalformed)
	}
	return c, nil
}

// Open reads a checkpoint that one of the log's keys signed, whose name is its origin, and returns which of the others signed it as well, each once. A
// signature that is malformed, by a stranger or false is passed over: who can add lines can add nothing but these, and whoever relies on a
// witness counts those that are true.
func Open(data []byte, log, others []note.Verifier) (c Checkpoint, by []note.Verifier, err error) {
	if len(data) > MaxCheckpoint {
		return Checkpoint{}, nil, fmt.Errorf("%w: longer than %d bytes", ErrMalformed, MaxCheckpoint)
	}
	end := bytes.LastIndex(data, []byte("\n\n"))
	if end < 0 {
		return Checkpoint{}, nil, fmt.Errorf("%w: no empty line before the signatures", ErrMalformed)
	}
	text, lines := data[:end+1], strings.Split(string(data[end+2:]), "\n")
	if len(lines) > maxLines {
		return Checkpoint{}, nil, fmt.Errorf("%w: more than %d signatures", ErrMalformed, maxLines)
	}
	if c, err = ParseCheckpoint(string(text)); err != nil {
		return Checkpoint{}, nil, err
	}
	signed := false
	for _, v := range log {
		signed = signed || v.Name() == c.Origin && anyBy(lines, v, text)
	}
	if !signed {
		return Checkpoint{}, nil, ErrUnsigned
	}
	for _, v := range others {
		if anyBy(lines, v, text) {
			by = append(by, v)
		}
	}
	return c, by, nil
}

// anyBy reports whether one of the lines is a signature of v over text.
func anyBy(lines []string, v note.Verifier, text []byte) bool {
	for _, line := range lines {
		rest, ok := strings.CutPrefix(line, "— "+v.Name()+" ")
		if !ok {
			continue
		}
		raw, err := base64.StdEncoding.DecodeString(rest)
		if err == nil && len(raw) > keyIDSize && binary.BigEndian.Uint32(raw) == v.KeyHash() && v.Verify(text, raw[keyIDSize:]) {
			return true
		}
	}
	return false
}

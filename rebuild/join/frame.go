package join

import (
	"bufio"
	"errors"
	"fmt"
	"io"
)

// Bounds of the two directions of the stream. A server has little to say; a bundle is large.
const (
	MaxFromServer = 64 << 10
	MaxToServer   = MaxFrame
)

// Frames reads newline-delimited messages with a bound on each line.
type Frames struct {
	r     *bufio.Reader
	limit int
}

// NewFrames reads lines of at most limit bytes from r.
func NewFrames(r io.Reader, limit int) *Frames {
	return &Frames{r: bufio.NewReaderSize(r, 16<<10), limit: limit}
}

// line returns the next line without its newline. A line over the limit is an error before it is held whole.
func (f *Frames) line() ([]byte, error) {
	var line []byte
	for {
		part, err := f.r.ReadSlice('\n')
		if len(line)+len(part) > f.limit+1 {
			return nil, Refuse(BodyOversize, "a line of more than %d bytes", f.limit)
		}
		line = append(line, part...)
		switch {
		case err == nil:
			return line[:len(line)-1], nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(line) > 0:
			return nil, fmt.Errorf("reading the stream: %w", io.ErrUnexpectedEOF)
		default:
			return nil, err
		}
	}
}

// FromServer reads the next message of a server.
func (f *Frames) FromServer() (FromServer, error) {
	line, err := f.line()
	if err != nil {
		return FromServer{}, err
	}
	m, err := Decode[FromServer](line, f.limit)
	if err != nil {
		return FromServer{}, err
	}
	if !oneOf(m.Health != nil, m.Drained != nil, m.Login != nil) {
		return FromServer{}, Refuse(BodyMalformed, "not exactly one field set")
	}
	if m.Login != nil {
		if err := m.Login.Check(); err != nil {
			return FromServer{}, err
		}
	}
	if m.Health != nil {
		if err := m.Health.checkWarnings(); err != nil {
			return FromServer{}, err
		}
	}
	if m.Health != nil && len(m.Health.Services) > MaxServices {
		return FromServer{}, Refuse(RequestInvalid, "%d services, at most %d", len(m.Health.Services), MaxServices)
	}
	return m, nil
}

// ToServer reads the next message of the controller.
func (f *Frames) ToServer() (ToServer, error) {
	line, err := f.line()
	if err != nil {
		return ToServer{}, err
	}
	m, err := Decode[ToServer](line, f.limit)
	if err != nil {
		return ToServer{}, err
	}
	if !oneOf(m.Drain != nil, m.Policy != nil, m.Logins != nil, m.Trust != nil, m.Ledger != nil, m.Extension != nil, m.Order != nil) {
		return ToServer{}, Refuse(BodyMalformed, "not exactly one field set")
	}
	for _, s := range []*Signed{m.Extension, m.Order} {
		if s != nil && (len(s.File) == 0 || len(s.File) > MaxSigned || len(s.Sig) == 0 || len(s.Sig) > MaxSigned) {
			return ToServer{}, Refuse(RequestInvalid, "a signed file of %d bytes with signatures of %d", len(s.File), len(s.Sig))
		}
	}
	if m.Ledger != nil && len(m.Ledger.Proof) > MaxLedgerProof {
		return ToServer{}, Refuse(BodyOversize, "a proof of %d bytes, at most %d", len(m.Ledger.Proof), MaxLedgerProof)
	}
	if m.Drain != nil && (m.Drain.Limit < 0 || m.Drain.Limit > MaxDrain) {
		return ToServer{}, Refuse(RequestInvalid, "drain limit %s, not from 0 to %s", m.Drain.Limit, MaxDrain)
	}
	return m, nil
}

func oneOf(set ...bool) bool {
	n := 0
	for _, s := range set {
		if s {
			n++
		}
	}
	return n == 1
}

// WriteFrame writes one message and its newline in one call.
func WriteFrame(w io.Writer, message any) error {
	b, err := Encode(message)
	if err != nil {
		return err
	}
	if _, err := w.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("writing the stream: %w", err)
	}
	return nil
}

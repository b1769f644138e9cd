package agent

import (
	"encoding/binary"
	"fmt"
	"io"
)

// reader takes SSH wire values (RFC 4251, section 5) off the front of data. The first fault sticks and names its field.
type reader struct {
	data []byte
	err  error
}

func (r *reader) take(field string, n int) []byte {
	if r.err != nil {
		return nil
	}
	if len(r.data) < n {
		r.err = fmt.Errorf("%s: %d bytes, want %d", field, len(r.data), n)
		return nil
	}
	var part []byte
	part, r.data = r.data[:n:n], r.data[n:]
	return part
}

func (r *reader) byte(field string) byte {
	if b := r.take(field, 1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint32(field string) uint32 {
	if b := r.take(field, 4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// string takes a string of at most so many bytes.
func (r *reader) string(field string, most int) []byte {
	n := r.uint32(field)
	if r.err == nil && n > uint32(most) {
		r.err = fmt.Errorf("%s: %d bytes, %d at most", field, n, most)
	}
	return r.take(field, int(min(n, uint32(most))))
}

// bool takes a boolean that is written as 0 or 1, and as nothing else.
func (r *reader) bool(field string) bool {
	b := r.byte(field)
	if r.err == nil && b > 1 {
		r.err = fmt.Errorf("%s: boolean %d, want 0 or 1", field, b)
	}
	return b == 1
}

// end says what was wrong, or that something is left over.
func (r *reader) end() error {
	if r.err == nil && len(r.data) > 0 {
		r.err = fmt.Errorf("%d bytes too many at the end", len(r.data))
	}
	return r.err
}

func appendString[T ~string | ~[]byte](b []byte, s T) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}

// tooLong is a message's length that nobody is given memory for.
type tooLong uint32

func (n tooLong) Error() string {
	return fmt.Sprintf("a message of %d bytes, %d at most", uint32(n), maxMessage)
}

// readLength reads what stands before a message. begun is called when its first byte is there.
func readLength(r io.Reader, begun func() error) (int, error) {
	var b [4]byte
	if _, err := io.ReadFull(r, b[:1]); err != nil {
		return 0, err
	}
	if err := begun(); err != nil {
		return 0, err
	}
	if _, err := io.ReadFull(r, b[1:]); err != nil {
		return 0, noEOF(err)
	}
	n := binary.BigEndian.Uint32(b[:])
	if n > maxMessage {
		return 0, tooLong(n)
	}
	return int(n), nil
}

// readMessage reads one message, which may be empty.
func readMessage(r io.Reader, begun func() error) ([]byte, error) {
	n, err := readLength(r, begun)
	if err != nil {
		return nil, err
	}
	message := make([]byte, n)
	if _, err := io.ReadFull(r, message); err != nil {
		return nil, noEOF(err)
	}
	return message, nil
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func writeMessage(w io.Writer, message []byte) error {
	_, err := w.Write(appendString(make([]byte, 0, 4+len(message)), message))
	return err
}

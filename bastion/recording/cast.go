package recording

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"time"
	"unicode/utf8"
)

// Specification constants (asciicast v2).
const (
	version = 2

	KindOutput = "o" // what the server showed
	KindInput  = "i" // what went to a shell or command without a terminal
	KindResize = "r" // "COLUMNSxROWS"
	KindMarker = "m" // ours: how the session ended, as the last event

	// Ours: what is no UTF-8 cannot be in a JSON string. Base64; other players pass over them.
	KindRawOutput = "O"
	KindRawInput  = "I"
)

// Bounds of what is read back.
const (
	maxLine    = 1 << 20
	maxSeconds = 7 * 24 * 3600
	maxSide    = 1 << 16 // columns or rows
)

// Header is the first line.
type Header struct {
	Version   int               `json:"version"`
	Width     uint32            `json:"width"`
	Height    uint32            `json:"height"`
	Timestamp int64             `json:"timestamp"`
	Title     string            `json:"title,omitempty"`
	Command   string            `json:"command,omitempty"`
	Bytes     []byte            `json:"command_bytes,omitempty"` // ours: the command, if it is no UTF-8
	Env       map[string]string `json:"env,omitempty"`
}

// Event is every other line: [seconds, kind, data].
type Event struct {
	Seconds float64
	Kind    string
	Data    string
}

// MarshalJSON writes the three-element form.
func (e Event) MarshalJSON() ([]byte, error) {
	return json.Marshal([]any{json.RawMessage(fmt.Sprintf("%.6f", e.Seconds)), e.Kind, e.Data})
}

// errCast is what is wrong with a line of a recording.
var errCast = errors.New("not asciicast v2")

// caster writes the lines. It is not safe for concurrent use.
type caster struct {
	w     io.Writer
	began time.Time
	held  [3][]byte // an unfinished character of each stream, the input last
}

// newCaster writes the header.
func newCaster(w io.Writer, h Header, began time.Time) (*caster, error) {
	h.Version, h.Timestamp = version, began.Unix()
	h.Width, h.Height = side(h.Width, 80), side(h.Height, 24)
	c := &caster{w: w, began: began}
	return c, c.line(h)
}

// side bounds what a client says of its terminal.
func side(n, otherwise uint32) uint32 {
	if n == 0 {
		return otherwise
	}
	return min(n, maxSide-1)
}

func (c *caster) line(v any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err
	}
	_, err := c.w.Write(b.Bytes())
	return err
}

func (c *caster) event(now time.Time, kind, data string) error {
	return c.line(Event{Seconds: max(now.Sub(c.began).Seconds(), 0), Kind: kind, Data: data})
}

// stdin is the number of the input among the streams.
const stdin = 2

// output writes what came on a stream.
func (c *caster) output(now time.Time, stream int, data []byte) error {
	return c.stream(now, stream, data, KindOutput, KindRawOutput)
}

// input writes what went to standard input.
func (c *caster) input(now time.Time, data []byte) error {
	return c.stream(now, stdin, data, KindInput, KindRawInput)
}

// stream writes text as it is, and what is none byte for byte. A character that is cut in two waits for its rest.
func (c *caster) stream(now time.Time, stream int, data []byte, text, raw string) error {
	data = append(c.held[stream], data...)
	whole := len(data) - unfinished(data)
	c.held[stream] = bytes.Clone(data[whole:])
	if whole == 0 {
		return nil
	}
	if !utf8.Valid(data[:whole]) {
		return c.event(now, raw, base64.StdEncoding.EncodeToString(data[:whole]))
	}
	return c.event(now, text, string(data[:whole]))
}

// unfinished is how many bytes at the end may be the beginning of a character.
func unfinished(data []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(data); n++ {
		if b := data[len(data)-n:]; utf8.RuneStart(b[0]) {
			if !utf8.FullRune(b) {
				return n
			}
			return 0
		}
	}
	return 0
}

// end writes what is held, and how the session ended.
func (c *caster) end(now time.Time, how string) error {
	for stream, held := range c.held {
		kind := KindRawOutput
		if stream == stdin {
			kind = KindRawInput
		}
		if len(held) > 0 {
			if err := c.event(now, kind, base64.StdEncoding.EncodeToString(held)); err != nil {
				return err
			}
		}
	}
	return c.event(now, KindMarker, how)
}

// Reader reads the lines strictly.
type Reader struct {
	Header Header
	in     *noted
	lines  *bufio.Scanner
	n      int
	last   float64
}

// NewReader reads the header.
func NewReader(r io.Reader) (*Reader, error) {
	c := &Reader{in: &noted{r: r}}
	c.lines = bufio.NewScanner(c.in)
	c.lines.Buffer(make([]byte, 64<<10), maxLine)
	line, err := c.next()
	if errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: no header", errCast)
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(line, &c.Header); err != nil {
		return nil, c.bad("header: %w", err)
	}
	if h := c.Header; h.Version != version || h.Width == 0 || h.Height == 0 || h.Width >= maxSide || h.Height >= maxSide {
		return nil, fmt.Errorf("%w: header of version %d, %d by %d", errCast, h.Version, h.Width, h.Height)
	}
	return c, nil
}

// noted remembers why reading failed: a scanner hands on what it has as a last line before it says so.
type noted struct {
	r   io.Reader
	err error
}

func (n *noted) Read(b []byte) (int, error) {
	count, err := n.r.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		n.err = err
	}
	return count, err
}

// bad is the error of a line: that of reading it, if that failed.
func (c *Reader) bad(format string, args ...any) error {
	if c.in.err != nil {
		return fmt.Errorf("line %d: %w: %w", c.n, ErrTruncated, c.in.err)
	}
	return fmt.Errorf("line %d: %w: "+format, append([]any{c.n, errCast}, args...)...)
}

func (c *Reader) next() ([]byte, error) {
	c.n++
	if !c.lines.Scan() {
		if err := c.lines.Err(); err != nil {
			return nil, c.bad("%w", err)
		}
		return nil, io.EOF
	}
	return c.lines.Bytes(), nil
}

// Next is the next event, or io.EOF.
func (c *Reader) Next() (Event, error) {
	line, err := c.next()
	if err != nil {
		return Event{}, err
	}
	var parts []json.RawMessage
	var e Event
	if err := json.Unmarshal(line, &parts); err != nil || len(parts) != 3 {
		return Event{}, c.bad("not three values")
	}
	for i, to := range []any{&e.Seconds, &e.Kind, &e.Data} {
		if bytes.Equal(parts[i], []byte("null")) {
			return Event{}, c.bad("null")
		}
		if err := json.Unmarshal(parts[i], to); err != nil {
			return Event{}, c.bad("%w", err)
		}
	}
	if math.IsNaN(e.Seconds) || e.Seconds < c.last || e.Seconds > maxSeconds || len(e.Kind) != 1 {
		return Event{}, c.bad("second %g, kind %q", e.Seconds, e.Kind)
	}
	if e.Kind == KindRawOutput || e.Kind == KindRawInput {
		if _, err := base64.StdEncoding.Strict().DecodeString(e.Data); err != nil {
			return Event{}, c.bad("kind %q: %w", e.Kind, err)
		}
	}
	c.last = e.Seconds
	return e, nil
}

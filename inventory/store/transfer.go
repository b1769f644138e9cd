package store

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"

	"mayfly/internal/hint"
)

// Specification constants of an export (docs/formats/backup.md).
const (
	exportMagic   = "mayfly-store"
	exportVersion = 1
)

// Implementation constants.
const (
	maxLine   = 64 << 20 // a run's plan of a million servers
	maxExport = 4 << 30
)

// line is one line of an export: what it is, and that.
type line struct {
	Kind  string          `json:"kind"`
	Value json.RawMessage `json:"value"`
}

// head is the first line's value, and foot the last one's.
type head struct {
	Format  string `json:"format"`
	Version int    `json:"version"`
}

type foot struct {
	Lines  int    `json:"lines"`  // between the first and this
	SHA256 string `json:"sha256"` // of every byte before this line, hex
}

// Kinds of lines, in the order in which they come.
const (
	kindHead      = "head"
	kindPolicy    = "policy"
	kindPause     = "pause"
	kindUse       = "use"
	kindMark      = "mark"
	kindServer    = "server"
	kindEvent     = "event"
	kindTicket    = "ticket"
	kindRevoked   = "revoked"
	kindFailure   = "failure"
	kindDrain     = "drain"
	kindRestart   = "restart"
	kindExtension = "extension"
	kindRun       = "run"
	kindJournal   = "journal"
	kindOutcome   = "outcome"
	kindLogin     = "login"
	kindFoot      = "foot"
)

// writer writes lines and remembers the first failure.
type writer struct {
	out   *bufio.Writer
	sum   hash.Hash
	lines int
	err   error
}

func (w *writer) put(kind string, v any) {
	if w.err != nil {
		return
	}
	value, err := encode(v)
	if err != nil {
		w.err = err
		return
	}
	l, err := encode(line{kind, value})
	if err != nil {
		w.err = err
		return
	}
	if len(l) >= maxLine {
		w.err = fmt.Errorf("a %s of %d bytes is more than an export holds", kind, len(l))
		return
	}
	l = append(l, '\n')
	w.sum.Write(l)
	w.lines++
	_, w.err = w.out.Write(l)
}

// encode is the one form of a value: struct order, no white space, no HTML escapes.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

func putAll[T any](w *writer, kind string, all []T) {
	for _, v := range all {
		w.put(kind, v)
	}
}

// Write writes the export of c.
func (c *Content) Write(out io.Writer) error {
	w := &writer{out: bufio.NewWriterSize(out, 1<<20), sum: sha256.New()}
	w.put(kindHead, head{exportMagic, exportVersion})
	w.put(kindPolicy, c.Policy)
	w.put(kindPause, c.Pause)
	if c.Use != nil {
		w.put(kindUse, *c.Use)
	}
	putAll(w, kindMark, c.Marks)
	putAll(w, kindServer, c.Servers)
	putAll(w, kindEvent, c.Events)
	putAll(w, kindTicket, c.Tickets)
	putAll(w, kindRevoked, c.Revoked)
	putAll(w, kindFailure, c.Failures)
	putAll(w, kindDrain, c.Drains)
	putAll(w, kindRestart, c.Restarts)
	putAll(w, kindExtension, c.Extensions)
	putAll(w, kindRun, c.Runs)
	putAll(w, kindJournal, c.Journal)
	putAll(w, kindOutcome, c.Outcomes)
	putAll(w, kindLogin, c.Logins)
	w.put(kindFoot, foot{w.lines - 1, hex.EncodeToString(w.sum.Sum(nil))})
	if w.err != nil {
		return fmt.Errorf("exporting the store: %w", w.err)
	}
	return w.out.Flush()
}

// ReadContent reads an export and refuses one that is not whole, not in its one form, or that no store can have.
func ReadContent(in io.Reader) (*Content, error) {
	c := &Content{}
	r := &reader{sum: sha256.New()}
	scan := bufio.NewScanner(io.LimitReader(in, maxExport))
	scan.Buffer(make([]byte, 0, 64<<10), maxLine)
	for scan.Scan() {
		if r.over {
			return nil, fmt.Errorf("line %d of the export: it comes after the last", r.number+1)
		}
		r.number++
		if err := r.take(c, scan.Bytes()); err != nil {
			return nil, fmt.Errorf("line %d of the export: %w", r.number, err)
		}
		r.sum.Write(scan.Bytes())
		r.sum.Write([]byte("\n"))
	}
	if err := scan.Err(); err != nil {
		return nil, fmt.Errorf("reading the export after line %d: %w", r.number, err)
	}
	if !r.over {
		return nil, hint.New(fmt.Errorf("the export ends after line %d without its digest: it is not whole", r.number), "take the file from where it was saved once more")
	}
	if err := c.Check(); err != nil {
		return nil, fmt.Errorf("the export contradicts itself: %w", err)
	}
	return c, nil
}

// reader is what is known between lines.
type reader struct {
	sum    hash.Hash
	number int
	place  int // of the last line's kind in the order
	over   bool
}

var order = []string{kindHead, kindPolicy, kindPause, kindUse, kindMark, kindServer, kindEvent, kindTicket, kindRevoked, kindFailure, kindDrain, kindRestart,
	kindExtension, kindRun, kindJournal, kindOutcome, kindLogin, kindFoot}

// once are kinds of which an export has one at most.
var once = map[string]bool{kindHead: true, kindPolicy: true, kindPause: true, kindUse: true, kindFoot: true}

func (r *reader) take(c *Content, data []byte) error {
	var l line
	if err := strict(data, &l); err != nil {
		return err
	}
	place := -1
	for i, kind := range order {
		if kind == l.Kind {
			place = i
		}
	}
	switch {
	case r.number == 1 && l.Kind != kindHead:
		return errors.New("it is no export of a store")
	case place < 0:
		return fmt.Errorf("there is no kind %q", l.Kind)
	case r.number > 1 && (place < r.place || place == r.place && once[l.Kind]):
		return fmt.Errorf("a %s comes here out of order, or twice", l.Kind)
	}
	r.place = place
	switch l.Kind {
	case kindHead:
		return checkHead(l.Value)
	case kindFoot:
		var f foot
		if err := strict(l.Value, &f); err != nil {
			return err
		}
		if have := hex.EncodeToString(r.sum.Sum(nil)); f.Lines != r.number-2 || f.SHA256 != have {
			return hint.New(fmt.Errorf("the digest says %d lines and %s, these are %d lines and %s", f.Lines, f.SHA256, r.number-2, have), "the file was changed or damaged: take another")
		}
		r.over = true
		return nil
	case kindPolicy:
		return strict(l.Value, &c.Policy)
	case kindPause:
		return strict(l.Value, &c.Pause)
	case kindUse:
		c.Use = &Use{}
		return strict(l.Value, c.Use)
	}
	return c.add(l.Kind, l.Value)
}

// add takes a line of a kind of which there may be many.
func (c *Content) add(kind string, value []byte) error {
	switch kind {
	case kindMark:
		return more(value, &c.Marks)
	case kindServer:
		return more(value, &c.Servers)
	case kindEvent:
		return more(value, &c.Events)
	case kindTicket:
		return more(value, &c.Tickets)
	case kindRevoked:
		return more(value, &c.Revoked)
	case kindFailure:
		return more(value, &c.Failures)
	case kindDrain:
		return more(value, &c.Drains)
	case kindRestart:
		return more(value, &c.Restarts)
	case kindExtension:
		return more(value, &c.Extensions)
	case kindRun:
		return more(value, &c.Runs)
	case kindJournal:
		return more(value, &c.Journal)
	case kindOutcome:
		return more(value, &c.Outcomes)
	default:
		return more(value, &c.Logins)
	}
}

func more[T any](value []byte, list *[]T) error {
	var v T
	if err := strict(value, &v); err != nil {
		return err
	}
	*list = append(*list, v)
	return nil
}

func checkHead(value []byte) error {
	var h head
	if err := json.Unmarshal(value, &h); err != nil || h.Format != exportMagic {
		return errors.New("it is no export of a store")
	}
	if h.Version > exportVersion {
		return hint.New(fmt.Errorf("its version is %d and this program knows %d: %w", h.Version, exportVersion, ErrNewer), "use the newer fleetctl that wrote it")
	}
	return strict(value, &h)
}

// strict reads one value in the one form of encode: what marshals to other bytes is refused.
func strict(data []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	again, err := encode(v)
	if err != nil {
		return err
	}
	if !bytes.Equal(again, data) {
		return errors.New("not in its one form")
	}
	return nil
}

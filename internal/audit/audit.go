// Package audit is a log that shows whether it was changed: JSON lines, numbered, each with the SHA-256 of the line before. Cutting,
// altering, inserting or reordering lines breaks the chain at a line that Verify names. What it does not show is that lines
// were cut off at the end, or that everything was written anew: that takes a witness elsewhere.
//
// One line:
//
//	{"seq":2,"time":"2030-01-01T00:00:00Z","prev":"<hex>","event":"connection","record":{…}}
//
// prev is the hash of the previous line without its newline; of the first line, 64 zeros. A record is on disk when Append
// returns. One process writes at a time.
package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"mayfly/internal/hint"
)

// MaxLine bounds a line, in bytes with its newline.
const MaxLine = 64 << 10

// EventTorn is the event of the record that notes a cut: the last line was not whole, after a crash.
const EventTorn = "audit_torn"

// origin is prev of the first line.
var origin = strings.Repeat("0", 2*sha256.Size)

var eventName = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,63}$`)

// line is one record in the file.
type line struct {
	Seq    uint64          `json:"seq"`
	Time   time.Time       `json:"time"`
	Prev   string          `json:"prev"`
	Event  string          `json:"event"`
	Record json.RawMessage `json:"record"`
}

// Log is an open log. It may be used by several goroutines.
type Log struct {
	mu     sync.Mutex
	file   *os.File
	now    func() time.Time
	size   int64  // of the whole lines in the file
	seq    uint64 // of the last line
	prev   string // hash of the last line
	broken error  // a write failed and could not be undone
}

// torn is the record of an EventTorn.
type torn struct {
	Bytes  int    `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// Open opens the log at path for appending, and makes it with mode 0600 if it is not there. It fails if another process writes
// the log, or if its last line does not follow from the one before. A last line without its end is cut off, and a record says so.
func Open(path string) (*Log, error) { return open(path, time.Now) }

func open(path string, now func() time.Time) (*Log, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, hint.New(fmt.Errorf("opening audit log: %w", err), "check that the directory exists and that this user may write there")
	}
	l := &Log{file: f, now: now, prev: origin}
	if err := l.begin(); err != nil {
		return nil, errors.Join(fmt.Errorf("opening audit log %s: %w", path, err), f.Close())
	}
	return l, nil
}

func (l *Log) begin() error {
	info, err := l.file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New("not a regular file")
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return hint.New(fmt.Errorf("mode %04o lets others at it", perm), "chmod 600 %s", l.file.Name())
	}
	if err := syscall.Flock(int(l.file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return hint.New(errors.New("another process writes it"), "end the other process, or give this one a log of its own")
		}
		return fmt.Errorf("locking: %w", err)
	}
	return l.resume()
}

// resume takes up the chain at the file's last whole line.
func (l *Log) resume() error {
	info, err := l.file.Stat() // again, now that nobody else writes
	if err != nil {
		return err
	}
	const window = 3 * MaxLine // two whole lines and a torn one
	start := max(0, info.Size()-window)
	tail := make([]byte, info.Size()-start)
	if _, err := l.file.ReadAt(tail, start); err != nil {
		return err
	}
	whole := bytes.LastIndexByte(tail, '\n') + 1
	if len(tail)-whole > MaxLine {
		return fmt.Errorf("it ends in more than %d bytes without a line", MaxLine)
	}
	if err := l.follow(tail[:whole], start == 0); err != nil {
		return err
	}
	l.size = start + int64(whole)
	rest := tail[whole:]
	if len(rest) == 0 {
		return nil
	}
	if err := l.file.Truncate(l.size); err != nil {
		return fmt.Errorf("cutting a torn line: %w", err)
	}
	return l.Append(EventTorn, torn{Bytes: len(rest), SHA256: hash(rest)})
}

// follow checks the last two lines of the tail, or the only one of a file that begins there.
func (l *Log) follow(tail []byte, fromStart bool) error {
	if len(tail) == 0 {
		if !fromStart {
			return errors.New("its last line is too long")
		}
		return nil
	}
	lines := bytes.Split(bytes.TrimSuffix(tail, []byte{'\n'}), []byte{'\n'})
	last := lines[len(lines)-1]
	v, err := parse(last)
	if err != nil {
		return fmt.Errorf("last line: %w", err)
	}
	switch {
	case len(lines) > 1:
		before, err := parse(lines[len(lines)-2])
		if err != nil && (fromStart || len(lines) > 2) {
			return fmt.Errorf("last line but one: %w", err)
		}
		if err != nil {
			return errors.New("its last lines are too long")
		}
		if v.Seq != before.Seq+1 || v.Prev != hash(lines[len(lines)-2]) {
			return hint.New(fmt.Errorf("record %d does not follow from record %d: the log was changed", v.Seq, before.Seq), "keep the file as evidence and start a new one")
		}
	case fromStart:
		if v.Seq != 1 || v.Prev != origin {
			return hint.New(fmt.Errorf("its first record is number %d: the log was changed", v.Seq), "keep the file as evidence and start a new one")
		}
	default:
		return errors.New("its last line is too long")
	}
	l.seq, l.prev = v.Seq, hash(last)
	return nil
}

// Append writes one record. It is on disk when Append returns nil; otherwise it is not in the log.
func (l *Log) Append(event string, record any) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.append(event, record); err != nil {
		return fmt.Errorf("writing audit record %q: %w", event, err)
	}
	return nil
}

func (l *Log) append(event string, record any) error {
	if l.broken != nil {
		return l.broken
	}
	if !eventName.MatchString(event) {
		return errors.New("event is no lower-case word")
	}
	body, err := json.Marshal(record)
	if err != nil {
		return err
	}
	text, err := json.Marshal(line{Seq: l.seq + 1, Time: l.now().UTC(), Prev: l.prev, Event: event, Record: body})
	if err != nil {
		return err
	}
	if len(text)+1 > MaxLine {
		return fmt.Errorf("longer than %d bytes", MaxLine)
	}
	_, err = l.file.WriteAt(append(text, '\n'), l.size)
	if err == nil {
		err = l.file.Sync()
	}
	if err != nil {
		if terr := l.file.Truncate(l.size); terr != nil {
			err = errors.Join(err, terr)
			l.broken = fmt.Errorf("the log is closed after a failed write: %w", err)
		}
		return err
	}
	l.seq, l.prev, l.size = l.seq+1, hash(text), l.size+int64(len(text))+1
	return nil
}

// Close closes the log and lets another process write it.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken == nil {
		l.broken = os.ErrClosed
	}
	return l.file.Close()
}

// Verify reads a whole log and returns how many records it holds. It fails at the first line that does not follow from the one
// before, and names it.
func Verify(r io.Reader) (n int, err error) {
	prev := origin
	scanner := newScanner(r)
	for scanner.Scan() {
		text := scanner.Bytes()
		v, err := parse(text)
		switch {
		case err != nil:
			return n, fmt.Errorf("line %d: %w", n+1, err)
		case v.Seq != uint64(n)+1:
			return n, fmt.Errorf("line %d: it is record %d", n+1, v.Seq)
		case v.Prev != prev:
			return n, fmt.Errorf("line %d: it does not follow from the line before, one of them was changed", n+1)
		}
		prev = hash(text)
		n++
	}
	if err := scanner.Err(); err != nil {
		return n, fmt.Errorf("line %d: %w", n+1, err)
	}
	return n, nil
}

func hash(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

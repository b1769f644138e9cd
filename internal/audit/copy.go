package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"

	"mayfly/internal/durable"
	"mayfly/internal/hint"
)

// Copy is a log that another machine writes, kept so that it outlives that machine: a Replica's other end. It has the log's public
// key only. What it holds is a log like any other, for Verify and Read.
type Copy struct {
	mu  sync.Mutex
	key string
	log Log // without a signer, and without the goroutines of one that is written here
}

const keyHint = "a life has one log, and a log one key: somebody else writes in its name"

// Refused is why a copy does not take a batch, which will not do again either.
type Refused struct{ Err error }

func (r *Refused) Error() string { return r.Err.Error() }

// Unwrap returns the cause.
func (r *Refused) Unwrap() error { return r.Err }

func refused(format string, args ...any) error { return &Refused{fmt.Errorf(format, args...)} }

// OpenCopy opens the copy of the log with this verifier key, or begins it: the first key that comes is the log's for good.
func OpenCopy(dir, key, name string) (*Copy, error) {
	c := &Copy{key: key, log: Log{dir: dir, now: time.Now, space: space{reserve: Reserve}}}
	if err := c.begin(key, name); err != nil {
		err = fmt.Errorf("opening the copy of an audit log %s: %w", dir, err)
		for _, f := range []*os.File{c.log.lock, c.log.file()} {
			if f != nil {
				err = errors.Join(err, f.Close())
			}
		}
		return nil, err
	}
	return c, nil
}

func (c *Copy) begin(key, name string) (err error) {
	l := &c.log
	if l.verifier, err = note.NewVerifier(key); err != nil {
		return refused("verifier key: %w", err)
	}
	if l.verifier.Name() != name {
		return refused("the log calls itself %.100q, not %q", l.verifier.Name(), name)
	}
	if err := l.own(); err != nil {
		return err
	}
	path := filepath.Join(l.dir, KeyName+".pub")
	switch known, err := readKey(path); {
	case missing(err):
		if err := durable.WriteFile(path, []byte(key+"\n"), 0o644); err != nil {
			return err
		}
	case err != nil:
		return err
	case known != key:
		return &Refused{hint.New(errors.New("the log has another key"), keyHint)}
	}
	p := &l.pub
	p.tree = &tree{}
	_, err = os.Lstat(filepath.Join(l.dir, checkpointFile))
	if err == nil {
		err = p.begin(l, true)
	} else if errors.Is(err, fs.ErrNotExist) {
		p.writes, p.partials = map[string]tile{}, map[string][]int{}
		err = nil
	}
	if err != nil {
		return err
	}
	left, err := replay(l.dir, p.tree.size)
	if err != nil {
		return hint.New(err, evidenceHint)
	}
	if err := os.Mkdir(filepath.Join(l.dir, journalDir), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	// What was not whole was never acknowledged, and comes again.
	l.staged = left.entries
	for _, entry := range left.entries {
		l.unpublished += frameHeader + len(entry)
	}
	l.next = p.tree.size + uint64(len(left.entries))
	for _, first := range left.segments {
		if first < l.next {
			l.older = append(l.older, first)
		} else if err := os.Remove(segmentPath(l.dir, first)); err != nil {
			return err
		}
	}
	if l.segment, err = createSegment(l.dir, l.next); err != nil {
		return err
	}
	l.older = append(l.older, l.next)
	return nil
}

// Take makes a batch durable. What the copy has already is left out.
func (c *Copy) Take(b Batch) (Kept, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := &c.log
	if l.broken != nil {
		return Kept{}, l.broken
	}
	if b.Log != c.key {
		return Kept{}, &Refused{hint.New(errors.New("the log has another key"), keyHint)}
	}
	if err := c.entries(b); err != nil {
		return Kept{}, err
	}
	if len(b.Checkpoint) > 0 {
		if err := c.checkpoint(b.Checkpoint); err != nil {
			return Kept{}, err
		}
	}
	return Kept{Next: l.next, Size: l.pub.last.Size}, nil
}

func (c *Copy) entries(b Batch) error {
	l := &c.log
	if len(b.Frames) > maxBatch {
		return refused("%d bytes at once, at most %d", len(b.Frames), maxBatch)
	}
	entries, rest := parseFrames(b.Frames)
	switch {
	case len(rest) > 0:
		return refused("a frame is not whole")
	case len(entries) == 0:
		return nil
	case b.First > l.next:
		return refused("records from %d on, and the copy has %d", b.First, l.next)
	}
	known := l.next - b.First
	if known >= uint64(len(entries)) {
		return nil
	}
	entries = entries[known:]
	var frames []byte
	var ends []int
	for i, entry := range entries {
		if _, err := ParseEntry(entry); err != nil {
			return refused("record %d: %w", l.next+uint64(i), err)
		}
		frames = appendFrame(frames, entry)
		ends = append(ends, len(frames))
	}
	if l.unpublished+len(frames) > maxUnpublished {
		return fmt.Errorf("%w", errUnpublished)
	}
	if err := l.space.enough(l.now()); err != nil {
		return err
	}
	l.commitMu.Lock()
	defer l.commitMu.Unlock()
	if l.segment.size >= maxSegment {
		if err := l.rotate(); err != nil {
			return err
		}
	}
	lost, err := l.segment.write(frames)
	if err != nil {
		if lost {
			l.broken = fmt.Errorf("the copy is closed after a failed write: %w", err)
		}
		return err
	}
	start := 0
	for _, end := range ends {
		l.staged = append(l.staged, frames[start+frameHeader:end:end])
		start = end
	}
	l.next += uint64(len(ends))
	l.unpublished += len(frames)
	return nil
}

// checkpoint puts the log's own checkpoint over what the copy holds, if it is over just that.
func (c *Copy) checkpoint(signed []byte) error {
	l := &c.log
	p := &l.pub
	if len(signed) > MaxCheckpoint {
		return refused("a checkpoint of %d bytes, at most %d", len(signed), MaxCheckpoint)
	}
	head, _, err := OpenCheckpoint(signed, l.verifier)
	switch {
	case err != nil:
		return refused("checkpoint: %w", err)
	case head.Size > l.next:
		return refused("a checkpoint over %d records, and the copy has %d", head.Size, l.next)
	case head.Size < p.last.Size:
		return nil // it was overtaken
	case head.Size == p.last.Size && p.signed != nil:
		if head.Root != p.last.Root {
			return refused("two checkpoints over %d records: keep the directory as evidence", head.Size)
		}
		return nil
	}
	keep := func(t tile) { p.writes[t.stem()] = t }
	bytes := 0
	for head.Size > p.tree.size {
		p.tree.add(l.staged[0], keep)
		bytes += frameHeader + len(l.staged[0])
		l.staged = l.staged[1:]
	}
	for _, t := range p.tree.edge() {
		keep(t)
	}
	if p.tree.root() != head.Root {
		l.broken = &Refused{hint.New(fmt.Errorf("the checkpoint over %d records is not over those that were sent", head.Size), evidenceHint)}
		return l.broken
	}
	err = p.writeTiles(l.dir)
	if err == nil {
		err = durable.WriteFile(filepath.Join(l.dir, checkpointFile), signed, 0o600)
	}
	if err != nil {
		l.broken = fmt.Errorf("the copy is closed after a failed write: %w", err) // it is opened anew from what is on disk
		return l.broken
	}
	p.last, p.signed = head, signed
	l.unpublished -= bytes
	return l.tidy()
}

// Broken says why the copy takes nothing any more, until it is opened anew.
func (c *Copy) Broken() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.log.broken
}

// Close lets another process write the copy.
func (c *Copy) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.log.broken = errors.Join(os.ErrClosed, c.log.broken)
	return errors.Join(c.log.segment.file.Close(), c.log.lock.Close())
}

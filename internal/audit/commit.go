package audit

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"mayfly/internal/hint"
)

// Implementation constants of writing.
const (
	maxUnpublished = 64 << 20 // bytes that no checkpoint covers; AppendOpening stops at half
	// A batch that follows the one before within busy waits so long for others to join, so that many records a second cost few
	// system calls. A lone record never waits, and one writer by himself waits in vain no more than this often.
	busy   = 5 * time.Millisecond
	gather = 2 * time.Millisecond
	inVain = 4
)

// errUnpublished is why nothing is taken when tiles cannot be written although the journal can.
var errUnpublished = errors.New("too many records wait for a checkpoint")

// batch is what is written to the journal at once.
type batch struct {
	frames []byte
	ends   []int  // of each frame
	first  uint64 // number of its first record, once it is written
	done   chan struct{}
	err    error
	behind error // the replica does not have it
}

// add appends a frame with an entry.
func (b *batch) add(now time.Time, event string, record []byte) {
	start := len(b.frames)
	b.frames = appendEntry(append(b.frames, make([]byte, frameHeader)...), now, event, record)
	frame := b.frames[start:]
	binary.BigEndian.PutUint32(frame, uint32(len(frame)-frameHeader))
	binary.BigEndian.PutUint32(frame[4:], crc32.Update(crc32.Checksum(frame[:4], castagnoli), castagnoli, frame[frameHeader:]))
	b.ends = append(b.ends, len(b.frames))
}

// Append writes one record. It is on disk when Append returns nil, and at the replica unless that does not answer; otherwise it is not in the log, unless the disk failed to
// say what it holds, after which the log takes nothing more.
func (l *Log) Append(event string, record any) error {
	_, err := l.AppendIndexed(event, record)
	return err
}

// AppendIndexed is Append, and returns the record's number.
func (l *Log) AppendIndexed(event string, record any) (uint64, error) {
	index, _, err := l.append(event, record, maxUnpublished)
	if err != nil {
		return 0, fmt.Errorf("writing audit record %q: %w", event, err)
	}
	return index, nil
}

// AppendOpening is Append for the beginning of something whose end must be written as well: it fails while there is less free
// space than the reserve.
func (l *Log) AppendOpening(event string, record any) error {
	err := errors.Join(l.ship.behind(), l.space.enough(l.now()))
	if err == nil {
		var behind error
		_, behind, err = l.append(event, record, maxUnpublished/2)
		err = errors.Join(err, behind)
	}
	if err != nil {
		return fmt.Errorf("writing audit record %q: %w", event, err)
	}
	return nil
}

// append says in behind that the record is written here and not yet at the replica.
func (l *Log) append(event string, record any, limit int) (index uint64, behind, err error) {
	body, err := encodeRecord(event, record)
	if err != nil {
		return 0, nil, err
	}
	b, place, err := l.join(event, body, limit)
	if err != nil {
		return 0, nil, err
	}
	if place == 0 {
		l.commit(b)
	}
	<-b.done
	return b.first + uint64(place), b.behind, b.err
}

// join puts a record into the batch that is being gathered. Whoever is its first has to commit it.
func (l *Log) join(event string, body []byte, limit int) (b *batch, place int, err error) {
	for {
		l.mu.Lock()
		b = l.pending
		switch {
		case l.broken != nil:
			err = l.broken
		case l.ship.full() != nil:
			err = l.ship.full()
		case l.unpublished > limit:
			err = hint.New(errUnpublished, "the journal can be written and the tiles cannot: see the log")
		}
		if err != nil {
			l.mu.Unlock()
			return nil, 0, err
		}
		if b != nil && len(b.frames)+len(body) > maxBatch-frameHeader-256 { // 256: keys, event and time
			l.mu.Unlock()
			<-b.done
			continue
		}
		if b == nil {
			b = &batch{done: make(chan struct{})}
			l.pending = b
		}
		place = len(b.ends)
		b.add(l.now(), event, body)
		l.mu.Unlock()
		return b, place, nil
	}
}

// commit writes a batch to the journal. Others join it for as long as the one before is being written.
func (l *Log) commit(b *batch) {
	l.commitMu.Lock()
	defer l.commitMu.Unlock()
	defer close(b.done)
	if began := time.Now(); l.alone < inVain && began.Sub(l.committed) < busy {
		time.Sleep(gather)
	}
	l.mu.Lock()
	l.pending = nil
	l.mu.Unlock()
	if l.alone++; len(b.ends) > 1 {
		l.alone = 0
	}
	defer func() { l.committed = time.Now() }()
	if l.segment.size >= maxSegment {
		if b.err = l.rotate(); b.err != nil {
			l.note(b, false)
			return
		}
	}
	b.first = l.next
	lost, err := l.segment.write(b.frames)
	b.err = err
	if err == nil {
		b.behind = l.ship.take(l.next, b) // before anything covers it by a checkpoint
	}
	l.note(b, lost)
}

// note keeps what became of a batch.
func (l *Log) note(b *batch, lost bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = b.err
	if b.err != nil {
		if lost && l.broken == nil {
			l.broken = hint.New(fmt.Errorf("the log is closed after a failed write: %w", b.err), "mend the disk, then start again")
		}
		return
	}
	start := 0
	for _, end := range b.ends {
		l.staged = append(l.staged, b.frames[start+frameHeader:end:end])
		start = end
	}
	l.next += uint64(len(b.ends))
	l.unpublished += len(b.frames)
	l.pub.poke()
}

// rotate begins a new segment of the journal.
func (l *Log) rotate() error {
	s, err := createSegment(l.dir, l.next)
	if err != nil {
		return err
	}
	old := l.segment
	l.segment = s
	l.older = append(l.older, s.first)
	return old.file.Close()
}

func hash(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

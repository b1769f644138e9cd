package audit

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"mayfly/internal/hint"
)

// Implementation constants of replication.
const (
	maxBehind    = 16 << 20 // bytes of frames that wait for the replica; Append fails beyond
	maxShipped   = 1 << 20  // bytes of frames that are sent at once, beyond one entry
	replicaAgain = time.Second
)

// MaxBatch bounds the frames of a Batch, in bytes.
const MaxBatch = maxBatch

// Batch is what a log hands to its replica: entries in the frames of the journal, and the newest checkpoint.
type Batch struct {
	Log        string `json:"log"`                  // the log's verifier key
	First      uint64 `json:"first"`                // number of the first entry
	Frames     []byte `json:"frames,omitempty"`     // of none: a question how far the replica is
	Checkpoint []byte `json:"checkpoint,omitempty"` // over entries that the replica has
}

// Kept is a replica's answer: all that it names is on its disk.
type Kept struct {
	Next uint64 `json:"next"` // entries before this one
	Size uint64 `json:"size"` // that its checkpoint covers
}

// Replica takes a batch to where the log outlives the machine that writes it. It returns once the batch is durable there, and ends
// by itself, with an error, after a time that a person would wait. Entries that come a second time are no error.
type Replica func(Batch) (Kept, error)

// ErrBehind is why nothing begins while the replica has not taken all that the log holds.
var ErrBehind = errors.New("the audit log's replica is behind")

const behindHint = "the log goes on here and is sent again and again: bring back what keeps it"

// shipper brings what the log holds to its replica, in order. While the replica does not answer, what is written waits here.
type shipper struct {
	log  *Log
	send Replica
	key  string // verifier key of the log
	wake chan struct{}
	stop chan struct{}

	mu         sync.Mutex
	synced     bool   // it is known what the replica has
	waiting    []byte // frames, written here and not there
	ends       []int  // of each
	first      uint64 // number of the first that waits, or of the next entry
	checkpoint []byte // the newest, if the replica has it not
	failed     error  // of the last try
}

func newShipper(l *Log, send Replica, key string) *shipper {
	return &shipper{log: l, send: send, key: key, wake: make(chan struct{}, 1), stop: make(chan struct{}), first: l.next,
		failed: errors.New("it was not asked yet")}
}

func (s *shipper) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// behind says why nothing may begin.
func (s *shipper) behind() error {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.synced && len(s.ends) == 0 {
		return nil
	}
	return hint.New(fmt.Errorf("%w by %d records: %w", ErrBehind, len(s.ends), s.failed), behindHint)
}

// full says why not even what is under way can be written any more.
func (s *shipper) full() error {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) <= maxBehind {
		return nil
	}
	return hint.New(fmt.Errorf("%d records wait for the audit log's replica, and no more can: %w", len(s.ends), s.failed), behindHint)
}

// take ships a batch that was written here. The caller holds commitMu. What is not taken waits, and the error says so.
func (s *shipper) take(first uint64, b *batch) error {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	direct := s.synced && len(s.ends) == 0
	s.mu.Unlock()
	var err error
	if direct {
		if err = s.ship(Batch{First: first, Frames: b.frames}, first+uint64(len(b.ends))); err == nil {
			s.mu.Lock()
			s.first = first + uint64(len(b.ends))
			s.mu.Unlock()
			return nil
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ends) == 0 {
		s.first = first
	}
	start := len(s.waiting)
	s.waiting = append(s.waiting, b.frames...)
	for _, end := range b.ends {
		s.ends = append(s.ends, start+end)
	}
	if err != nil {
		s.failed = err
	}
	s.poke()
	return fmt.Errorf("%w: %w", ErrBehind, s.failed)
}

// ship sends a batch, and wants to hear that everything before next is kept.
func (s *shipper) ship(b Batch, next uint64) error {
	b.Log = s.key
	kept, err := s.send(b)
	if err == nil && kept.Next < next {
		err = fmt.Errorf("it has %d records, and was sent %d", kept.Next, next)
	}
	return err
}

// newCheckpoint is sent once everything that it covers was.
func (s *shipper) newCheckpoint(signed []byte) {
	if s == nil {
		return
	}
	s.mu.Lock()
	s.checkpoint = signed
	s.mu.Unlock()
	s.poke()
}

// loop catches up until the log is closed, and then once more.
func (s *shipper) loop() {
	for {
		err := s.catchUp()
		pause := time.NewTimer(replicaAgain)
		if err == nil {
			pause.Stop() // until there is something new
		}
		select {
		case <-s.stop:
			pause.Stop()
			return
		case <-pause.C:
		case <-s.wake:
			if err != nil { // what is new does not make it try sooner
				select {
				case <-s.stop:
					pause.Stop()
					return
				case <-pause.C:
				}
			}
		}
	}
}

// catchUp sends all that waits, and then the checkpoint.
func (s *shipper) catchUp() (err error) {
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.failed = err
	}()
	s.mu.Lock()
	synced, first := s.synced, s.first
	s.mu.Unlock()
	if !synced {
		if err := s.sync(first); err != nil {
			return err
		}
	}
	for {
		b, count := s.some()
		if count == 0 {
			break
		}
		if err := s.ship(b, b.First+uint64(count)); err != nil {
			return err
		}
		s.sent(count)
	}
	s.mu.Lock()
	checkpoint, first := s.checkpoint, s.first
	s.mu.Unlock()
	if checkpoint == nil {
		return nil
	}
	if err := s.ship(Batch{First: first, Checkpoint: checkpoint}, 0); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.checkpoint) == len(checkpoint) && string(s.checkpoint) == string(checkpoint) {
		s.checkpoint = nil
	}
	return nil
}

// sync asks how far the replica is, and sends what the log held before it was opened.
func (s *shipper) sync(first uint64) error {
	kept, err := s.send(Batch{Log: s.key, First: first})
	if err != nil {
		return err
	}
	s.mu.Lock()
	all := s.first + uint64(len(s.ends))
	s.mu.Unlock()
	if kept.Next > all {
		return hint.New(fmt.Errorf("it has %d records and the log only %d: the log was cut off", kept.Next, all), evidenceHint)
	}
	if kept.Next < first {
		b := Batch{First: kept.Next}
		flush := func(next uint64) error {
			if len(b.Frames) == 0 {
				return nil
			}
			err := s.ship(b, next)
			b = Batch{First: next}
			return err
		}
		_, err := Read(s.log.dir, kept.Next, func(index uint64, text []byte) error {
			if index >= first {
				return nil
			}
			b.Frames = appendFrame(b.Frames, text)
			if len(b.Frames) < maxShipped {
				return nil
			}
			return flush(index + 1)
		})
		if err == nil {
			err = flush(first)
		}
		if err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.synced = true
	return nil
}

// some is what is sent next of what waits.
func (s *shipper) some() (Batch, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	count, end := 0, 0
	for count < len(s.ends) && (count == 0 || s.ends[count] <= maxShipped) {
		end = s.ends[count]
		count++
	}
	return Batch{First: s.first, Frames: append([]byte(nil), s.waiting[:end]...)}, count
}

// sent takes out what the replica has.
func (s *shipper) sent(count int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	end := s.ends[count-1]
	s.waiting = append([]byte(nil), s.waiting[end:]...)
	s.ends = append([]int(nil), s.ends[count:]...)
	for i := range s.ends {
		s.ends[i] -= end
	}
	s.first += uint64(count)
}

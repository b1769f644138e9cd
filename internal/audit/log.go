package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"mayfly/internal/hint"
)

// Files of a log beside its tiles (doc.go) and its journal.
const (
	checkpointFile = "checkpoint"           // the newest, with the cosignatures that it has
	witnessedFile  = "checkpoint.witnessed" // the newest that every witness cosigned
	lockFile       = "lock"
)

const evidenceHint = "keep the directory as evidence and start a new log elsewhere"

// Options say which log to open, and how.
type Options struct {
	Dir     string // private; made with mode 0700 if it is not there
	Key     string // file of the log's key; Dir/audit_key if empty, and made if the log is new
	Own     *Own   // the key itself, which is then in no file here
	Name    string // origin of a new log
	Shared  bool   // others may read the directory, and those of its group keep files of their own in it: it is sticky then
	Reserve uint64 // free bytes that AppendOpening leaves; 0 means Reserve

	Witnesses         []Witness
	OnWitnessRejected func(Rejection) // called from the log's goroutine; may be nil

	// Replica, if it is not nil, has what is appended before Append and AppendOpening return. While it fails, AppendOpening fails, and
	// what Append writes waits for it, up to a bound.
	Replica Replica

	now   func() time.Time
	quota int64 // of AppendRefused; 0 means RefusedQuota
}

// Own is a log's key that its writer holds already.
type Own struct {
	Signer   note.Signer
	Verifier note.Verifier
}

// Log is an open log. It may be used by several goroutines.
type Log struct {
	dir      string
	shared   bool
	now      func() time.Time
	lock     *os.File
	signer   note.Signer
	verifier note.Verifier
	space    space
	refused  *refusedFiles
	pub      publisher
	witness  *witnesses // nil without any
	ship     *shipper   // nil without a replica
	stopped  sync.WaitGroup

	mu          sync.Mutex
	pending     *batch // takes records in
	staged      [][]byte
	unpublished int   // bytes in the journal that no checkpoint covers
	broken      error // nothing is written any more
	failed      error // of the last write
	unsigned    error // of the last publication

	commitMu  sync.Mutex // held by the one who writes the journal
	segment   *segment
	committed time.Time // end of the last batch
	alone     int       // batches of one record since one that was shared
	next      uint64    // number of the next record
	older     []uint64  // first records of the segments that are there, the current one last
}

// Open opens a log for appending. It fails if another process writes it, or if what is there is not what its key signed.
// Records that a crash kept from being signed are taken up from the journal; a frame that was not whole is left out, and a
// record says so.
func Open(o Options) (*Log, error) {
	if o.now == nil {
		o.now = time.Now
	}
	if o.Key == "" {
		o.Key = filepath.Join(o.Dir, KeyName)
	}
	if o.Reserve == 0 {
		o.Reserve = Reserve
	}
	if o.quota == 0 {
		o.quota = RefusedQuota
	}
	l := &Log{dir: o.Dir, shared: o.Shared, now: o.now, space: space{reserve: o.Reserve}}
	if err := l.begin(o); err != nil {
		err = fmt.Errorf("opening audit log %s: %w", o.Dir, err)
		for _, f := range []*os.File{l.lock, l.file()} {
			if f != nil {
				err = errors.Join(err, f.Close())
			}
		}
		return nil, err
	}
	return l, nil
}

func (l *Log) file() *os.File {
	if l.segment == nil {
		return nil
	}
	return l.segment.file
}

func (l *Log) begin(o Options) (err error) {
	if err := l.own(); err != nil {
		return err
	}
	known, err := l.written()
	if err != nil {
		return err
	}
	name := o.Name
	if known {
		name = "" // a new key cannot be the one that signed it
	}
	if o.Own != nil {
		l.signer, l.verifier = o.Own.Signer, o.Own.Verifier
	} else if l.signer, l.verifier, err = loadKey(o.Key, name); err != nil {
		return err
	}
	if err := l.pub.begin(l, known); err != nil {
		return err
	}
	if l.refused, err = openRefused(filepath.Join(l.dir, refusedDir), o.quota); err != nil {
		return err
	}
	if len(o.Witnesses) > 0 {
		if l.witness, err = newWitnesses(l, o.Witnesses, o.OnWitnessRejected); err != nil {
			return err
		}
	}
	left, err := replay(l.dir, l.pub.tree.size)
	if err != nil {
		return hint.New(err, evidenceHint)
	}
	if o.Replica != nil {
		key, err := readKey(o.Key + ".pub")
		if err != nil {
			return err
		}
		l.next = l.pub.tree.size + uint64(len(left.entries)) // what resume makes it
		l.ship = newShipper(l, o.Replica, key)
		l.ship.newCheckpoint(l.pub.signed)
	}
	if err := l.resume(left); err != nil {
		return err
	}
	if l.ship != nil {
		l.stopped.Go(l.ship.loop)
	}
	l.stopped.Go(l.publishLoop)
	if l.witness != nil {
		l.stopped.Go(l.witness.loop)
	}
	return nil
}

// own makes the directory and takes the lock.
func (l *Log) own() error {
	if err := os.Mkdir(l.dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return hint.New(err, "check that the directory above exists and that this user may write there")
	}
	info, err := os.Lstat(l.dir)
	switch {
	case err != nil:
		return err
	case !info.IsDir():
		return hint.New(errors.New("not a directory"), "a log is a directory; keep a file of an older version as it is, and name another place")
	case l.shared && info.Mode().Perm()&0o002 == 0 && (info.Mode().Perm()&0o020 == 0 || info.Mode()&fs.ModeSticky != 0):
	case info.Mode().Perm()&0o077 != 0:
		return hint.New(fmt.Errorf("mode %04o lets others at it", info.Mode().Perm()), "chmod 700 %s", l.dir)
	}
	if l.lock, err = os.OpenFile(filepath.Join(l.dir, lockFile), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600); err != nil {
		return err
	}
	if err := syscall.Flock(int(l.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return hint.New(errors.New("another process writes it"), "end the other process, or give this one a log of its own")
		}
		return fmt.Errorf("locking: %w", err)
	}
	l.space.file = l.lock
	return nil
}

// written tells whether there is a log. One without its checkpoint is none that this package left.
func (l *Log) written() (bool, error) {
	_, err := os.Lstat(filepath.Join(l.dir, checkpointFile))
	if !errors.Is(err, fs.ErrNotExist) {
		return err == nil, err
	}
	all, err := segments(l.dir)
	if err != nil {
		return false, err
	}
	if _, err := os.Lstat(filepath.Join(l.dir, "tile")); err == nil || len(all) > 0 {
		return false, hint.New(errors.New("its checkpoint is gone: the log was changed"), evidenceHint)
	}
	return false, nil
}

// resume takes up what the journal held: it is signed, and the old journal removed, once a new one has the record of what was
// torn.
func (l *Log) resume(left replayed) (err error) {
	if err := os.Mkdir(filepath.Join(l.dir, journalDir), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	l.staged = left.entries
	l.next = l.pub.tree.size + uint64(len(left.entries))
	for _, first := range left.segments {
		if first < l.next {
			l.older = append(l.older, first)
		} else if err := os.Remove(segmentPath(l.dir, first)); err != nil { // nothing whole is in it
			return err
		}
	}
	if l.segment, err = createSegment(l.dir, l.next); err != nil {
		return err
	}
	l.older = append(l.older, l.next)
	if len(left.torn) > 0 {
		if err := l.Append(EventTorn, torn{Bytes: len(left.torn), SHA256: hash(left.torn)}); err != nil {
			return err
		}
	}
	return l.publish()
}

// Name is the log's origin.
func (l *Log) Name() string { return l.verifier.Name() }

// Checkpoint is the newest that was signed.
func (l *Log) Checkpoint() Checkpoint {
	l.pub.mu.Lock()
	defer l.pub.mu.Unlock()
	return l.pub.last
}

// Healthy says why the log cannot take what AppendOpening writes, or cannot be signed.
func (l *Log) Healthy() error {
	l.mu.Lock()
	err := errors.Join(l.broken, l.failed, l.unsigned)
	l.mu.Unlock()
	return errors.Join(err, l.ship.behind(), l.space.enough(l.now()))
}

// Close signs what is written, closes the log and lets another process write it.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.broken != nil && errors.Is(l.broken, os.ErrClosed) {
		l.mu.Unlock()
		return os.ErrClosed
	}
	l.broken = errors.Join(os.ErrClosed, l.broken)
	l.mu.Unlock()
	l.commitMu.Lock() // what was begun is written
	close(l.pub.stop)
	l.commitMu.Unlock()
	if l.witness != nil {
		l.witness.stop()
	}
	if l.ship != nil {
		close(l.ship.stop)
	}
	l.stopped.Wait()
	err := l.publish()
	if l.ship != nil {
		if serr := l.ship.catchUp(); serr != nil {
			err = errors.Join(err, fmt.Errorf("bringing the end of the audit log to its replica: %w", serr))
		}
	}
	if err == nil && l.next == l.pub.last.Size {
		err = os.Remove(segmentPath(l.dir, l.segment.first)) // all of it is signed
	}
	return errors.Join(err, l.segment.file.Close(), l.refused.close(), l.lock.Close())
}

var _ tlog.TileReader = tileReader{}

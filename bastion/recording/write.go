package recording

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"filippo.io/age"
	"golang.org/x/sys/unix"
)

// Implementation constants of recordings.
const (
	MaxSize   = 512 << 20   // of the lines of one session, before encryption
	Reserve   = 256 << 20   // free space that recordings leave on their file system: the audit log may be there too, and needs less
	syncEvery = time.Second // what was written is on disk after that
)

// Bounds are those of one recording. What is 0 is the package's own.
type Bounds struct {
	Size    int64  // of its lines
	Reserve uint64 // free bytes that it leaves

	free func(*os.File) (uint64, error) // tests have their own
	sync func(*os.File) error
}

// Suffix is the end of a recording's file name.
const Suffix = ".cast.age"

// ErrFull is returned when a recording has reached its bound: the session ends with it.
var ErrFull = errors.New("the recording has reached its bound")

// ErrSpace is ErrFull because the file system has no more than the reserve left.
var ErrSpace = fmt.Errorf("%w: free space is below the reserve for recordings", ErrFull)

// errClosed is returned when somebody writes after the end.
var errClosed = errors.New("the recording has ended")

// Recording is a file that is being written. Its methods are safe for concurrent use. After an error nothing more is recorded, and the
// session has to end.
type Recording struct {
	mu     sync.Mutex
	file   *os.File
	sum    hash.Hash
	sealed io.WriteCloser
	cast   *caster
	size   int64
	bounds Bounds
	timer  *time.Timer // runs while something written is not known to be on disk
	err    error
}

// ParseRecipients parses what a policy lists.
func ParseRecipients(list []string) ([]age.Recipient, error) {
	var recipients []age.Recipient
	for _, text := range list {
		var r age.Recipient
		r, err := age.ParseX25519Recipient(text)
		if err != nil {
			r, err = age.ParseHybridRecipient(text)
		}
		if err != nil {
			return nil, fmt.Errorf("recipient %.80q: %w", text, err)
		}
		recipients = append(recipients, r)
	}
	if len(recipients) == 0 {
		return nil, errors.New("no recipients")
	}
	// Recipients that resist a quantum computer and others do not go together: what the one protects, the other would give away.
	if _, err := age.Encrypt(io.Discard, recipients...); err != nil {
		return nil, fmt.Errorf("recipients: %w", err)
	}
	return recipients, nil
}

// Create makes a new file NAME.cast.age, which must not be there, and puts the encrypted header on disk.
func Create(dir, name string, recipients []age.Recipient, h Header, began time.Time, bounds Bounds) (r *Recording, err error) {
	if bounds.Size <= 0 {
		bounds.Size = MaxSize
	}
	if bounds.Reserve == 0 {
		bounds.Reserve = Reserve
	}
	if bounds.free == nil {
		bounds.free = free
	}
	if bounds.sync == nil {
		bounds.sync = (*os.File).Sync
	}
	path := filepath.Join(dir, name+Suffix)
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("making a recording: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("making a recording: %w", errors.Join(err, file.Close(), os.Remove(path)))
		}
	}()
	r = &Recording{file: file, sum: sha256.New(), bounds: bounds}
	if err := r.space(); err != nil {
		return nil, err
	}
	if r.sealed, err = age.Encrypt(io.MultiWriter(synced{r}, r.sum), recipients...); err != nil {
		return nil, err
	}
	if r.cast, err = newCaster(counted{r}, h, began); err != nil {
		return nil, err
	}
	if err := bounds.sync(file); err != nil {
		return nil, err
	}
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	return r, errors.Join(d.Sync(), d.Close())
}

// counted bounds what goes into the encryption.
type counted struct{ r *Recording }

func (c counted) Write(b []byte) (int, error) {
	if c.r.size+int64(len(b)) > c.r.bounds.Size {
		return 0, ErrFull
	}
	c.r.size += int64(len(b))
	return c.r.sealed.Write(b)
}

// synced sees that what goes into the file is on disk soon, however long the session then says nothing.
type synced struct{ r *Recording }

func (s synced) Write(b []byte) (int, error) {
	if s.r.timer == nil {
		s.r.timer = time.AfterFunc(syncEvery, s.r.sync)
	}
	return s.r.file.Write(b)
}

// sync puts on disk what was written. Others go on writing meanwhile; if it fails they are told.
func (r *Recording) sync() {
	r.mu.Lock()
	r.timer = nil // what is written from now on has a timer of its own
	r.mu.Unlock()
	if err := r.bounds.sync(r.file); err != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.err == nil {
			r.err = fmt.Errorf("putting a recording on disk: %w", err)
		}
	}
}

// space fails with ErrSpace if the file system has less than the reserve left.
func (r *Recording) space() error {
	left, err := r.bounds.free(r.file)
	if err == nil && left < r.bounds.Reserve {
		err = fmt.Errorf("%w: %d of %d bytes", ErrSpace, left, r.bounds.Reserve)
	}
	return err
}

func free(f *os.File) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return 0, fmt.Errorf("looking for free space: %w", err)
	}
	return st.Bavail * uint64(st.Bsize), nil
}

// Name is the file's name in its directory.
func (r *Recording) Name() string { return filepath.Base(r.file.Name()) }

// Output records what came on standard output (0) or standard error (1).
func (r *Recording) Output(stream int, data []byte) error {
	return r.do(func() error { return r.cast.output(time.Now(), stream, data) })
}

// Input records what went to standard input.
func (r *Recording) Input(data []byte) error {
	return r.do(func() error { return r.cast.input(time.Now(), data) })
}

// Resize records the terminal's new size.
func (r *Recording) Resize(width, height uint32) error {
	return r.do(func() error {
		return r.cast.event(time.Now(), KindResize, fmt.Sprintf("%dx%d", side(width, 80), side(height, 24)))
	})
}

func (r *Recording) do(f func() error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		r.err = r.space()
	}
	if r.err == nil {
		r.err = f()
	}
	return r.err
}

// Close writes the end, puts all of it on disk, and returns the file's SHA-256. After an error the file lacks its end, and the hash is
// of what it holds.
func (r *Recording) Close(how string) (sum string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if errors.Is(r.err, errClosed) {
		return "", r.err
	}
	err = r.err
	r.err = errClosed
	switch {
	case err == nil:
		r.bounds.Size += 1 << 10 // the end always fits
		if err = r.cast.end(time.Now(), how); err == nil {
			err = r.sealed.Close()
		}
	case errors.Is(err, ErrFull):
		r.bounds.Size += 1 << 10
		err = errors.Join(r.cast.event(time.Now(), KindMarker, how), r.sealed.Close())
	}
	if r.timer != nil {
		r.timer.Stop()
	}
	err = errors.Join(err, r.bounds.sync(r.file), r.file.Close())
	return hex.EncodeToString(r.sum.Sum(nil)), err
}

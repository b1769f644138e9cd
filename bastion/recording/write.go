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
)

// MaxSize bounds what one session may show, before encryption.
const MaxSize = 512 << 20

// Suffix is the end of a recording's file name.
const Suffix = ".cast.age"

// ErrFull is returned when a recording has reached its bound: the session ends with it.
var ErrFull = errors.New("the recording has reached its bound")

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
	limit  int64
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

// Create makes a new file NAME.cast.age, which must not be there, and puts the encrypted header on disk. limit bounds the size; 0 is MaxSize.
func Create(dir, name string, recipients []age.Recipient, h Header, began time.Time, limit int64) (r *Recording, err error) {
	if limit <= 0 {
		limit = MaxSize
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
	r = &Recording{file: file, sum: sha256.New(), limit: limit}
	if r.sealed, err = age.Encrypt(io.MultiWriter(file, r.sum), recipients...); err != nil {
		return nil, err
	}
	if r.cast, err = newCaster(counted{r}, h, began); err != nil {
		return nil, err
	}
	if err := file.Sync(); err != nil {
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
	if c.r.size+int64(len(b)) > c.r.limit {
		return 0, ErrFull
	}
	c.r.size += int64(len(b))
	return c.r.sealed.Write(b)
}

// Name is the file's name in its directory.
func (r *Recording) Name() string { return filepath.Base(r.file.Name()) }

// Output records what came on standard output (0) or standard error (1).
func (r *Recording) Output(stream int, data []byte) error {
	return r.do(func() error { return r.cast.output(time.Now(), stream, data) })
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
		r.limit += 1 << 10 // the end always fits
		if err = r.cast.end(time.Now(), how); err == nil {
			err = r.sealed.Close()
		}
	case errors.Is(err, ErrFull):
		r.limit += 1 << 10
		err = errors.Join(r.cast.event(time.Now(), KindMarker, how), r.sealed.Close())
	}
	err = errors.Join(err, r.file.Sync(), r.file.Close())
	return hex.EncodeToString(r.sum.Sum(nil)), err
}

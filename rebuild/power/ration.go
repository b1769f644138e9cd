package power

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Implementation constants of a ration.
const (
	rationBurst = 60          // commands at once; a life takes about 25
	rationEvery = time.Second // then one in this time
	rationDir   = "rations"   // below the directory of machines: a name no server can have, for it is no driver's
	maxRation   = 1 << 10     // bytes of its file
	rationRetry = 20 * time.Millisecond
)

// ration is a token bucket in a file: everything behind one BMC, and every process here, takes from the same. BMCs freeze when they
// get too many commands.
type ration struct {
	path  string
	burst float64
	every time.Duration
	now   func() time.Time
}

// rationState is the file.
type rationState struct {
	Tokens float64   `json:"tokens"`
	At     time.Time `json:"at"`
}

func newRation(dir, address string) *ration {
	sum := sha256.Sum256([]byte(address))
	return &ration{path: filepath.Join(dir, "."+rationDir, hex.EncodeToString(sum[:8])+".json"), burst: rationBurst, every: rationEvery, now: time.Now}
}

// take waits for a command's turn, unless it would come after ctx's end: then it fails at once.
func (r *ration) take(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	wait, err := r.reserve(ctx)
	if err != nil || wait == 0 {
		return err
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// reserve takes a token, which may be one of the future: the bucket then owes it, and the caller waits.
func (r *ration) reserve(ctx context.Context) (wait time.Duration, err error) {
	if err := os.MkdirAll(filepath.Dir(r.path), 0o700); err != nil {
		return 0, fmt.Errorf("rationing commands: %w", err)
	}
	f, created, err := r.open()
	if err != nil {
		return 0, fmt.Errorf("rationing commands: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return 0, fmt.Errorf("rationing commands: %w", err)
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(rationRetry):
		}
	}
	data, err := io.ReadAll(io.LimitReader(f, maxRation))
	if err != nil {
		return 0, fmt.Errorf("rationing commands: %w", err)
	}
	now := r.now()
	s := r.read(data, created, now)
	s.Tokens--
	if s.Tokens < 0 {
		wait = time.Duration(-s.Tokens * float64(r.every))
	}
	if end, ok := ctx.Deadline(); ok && now.Add(wait).After(end) {
		return 0, failf(Rationed, "the next command may be sent in %s", wait.Round(time.Second))
	}
	if data, err = json.Marshal(s); err != nil {
		return 0, err
	}
	if err := f.Truncate(0); err != nil {
		return 0, fmt.Errorf("rationing commands: %w", err)
	}
	_, err = f.WriteAt(data, 0)
	return wait, err
}

// open opens the bucket's file, or makes it.
func (r *ration) open() (f *os.File, created bool, err error) {
	const flags = os.O_RDWR | unix.O_NOFOLLOW | unix.O_NONBLOCK
	f, err = os.OpenFile(r.path, flags|os.O_CREATE|os.O_EXCL, 0o600)
	if !errors.Is(err, fs.ErrExist) {
		return f, err == nil, err
	}
	f, err = os.OpenFile(r.path, flags, 0o600)
	return f, false, err
}

// read is the bucket as it is now: full if it was made just now. A file that is no bucket, an empty one of a process that was killed while it wrote, or
// one of the future is an empty bucket: nobody gets more by damaging it.
func (r *ration) read(data []byte, created bool, now time.Time) rationState {
	if created && len(data) == 0 {
		return rationState{Tokens: r.burst, At: now}
	}
	var s rationState
	if err := json.Unmarshal(data, &s); err != nil || s.At.After(now) || s.Tokens > r.burst || s.Tokens < -maxDebt {
		return rationState{Tokens: 0, At: now}
	}
	s.Tokens = min(r.burst, s.Tokens+float64(now.Sub(s.At))/float64(r.every))
	s.At = now
	return s
}

// maxDebt is how many commands a bucket may owe.
const maxDebt = 10_000

package audit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"mayfly/internal/hint"
)

// Reserve is the free space below which nothing new is begun, so that closing records of what is under way can still be
// written: 10,000 of 2 KiB each take less, in the journal, in a tile and in the tile that replaces it.
const Reserve = 64 << 20

// spaceEvery is how long an answer about free space is good for. What strangers and sessions can write in between is far
// less than the reserve.
const spaceEvery = 250 * time.Millisecond

// ErrReserve is why AppendOpening refuses when the disk is nearly full.
var ErrReserve = errors.New("free space for the audit log is below the reserve")

// space remembers how much is free where the log is.
type space struct {
	file    *os.File // any of the log
	reserve uint64

	mu   sync.Mutex
	at   time.Time
	last error
}

// enough fails with ErrReserve if less than the reserve is free.
func (s *space) enough(now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := now.Sub(s.at); d >= 0 && d < spaceEvery {
		return s.last
	}
	s.at, s.last = now, s.look()
	return s.last
}

func (s *space) look() error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(s.file.Fd()), &st); err != nil {
		return fmt.Errorf("looking for free space: %w", err)
	}
	if free := st.Bavail * uint64(st.Bsize); free < s.reserve {
		return hint.New(fmt.Errorf("%w: %d of %d bytes", ErrReserve, free, s.reserve), "make space where %s is", filepath.Dir(s.file.Name()))
	}
	return nil
}

package audit

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"mayfly/internal/durable"
)

// Implementation constants of what strangers cause.
const (
	RefusedQuota  = 16 << 20 // bytes of all files together
	refusedDir    = "refused"
	refusedPieces = 8 // the quota is kept by dropping the oldest of so many files
)

// EventDropped is the event of the record that notes a file of refusals that was dropped to keep the quota.
const EventDropped = "refused_dropped"

// dropped is the record of an EventDropped.
type dropped struct {
	File    string `json:"file"`
	Records int    `json:"records"`
	Bytes   int64  `json:"bytes"`
}

// refusedFiles holds records that strangers cause, outside the log: JSON lines in files with a quota, the oldest dropped first.
// They are neither signed nor synced, so that they cost nothing that an engineer needs.
type refusedFiles struct {
	dir   string
	quota int64

	mu    sync.Mutex
	file  *os.File // nil until something is written
	size  int64    // of the newest file
	names []string // oldest first
	sizes map[string]int64
	lost  int // records that could not be written since the last that could
}

func openRefused(dir string, quota int64) (*refusedFiles, error) {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	r := &refusedFiles{dir: dir, quota: quota, sizes: map[string]int64{}}
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		info, err := f.Info()
		if err != nil {
			return nil, err
		}
		if !strings.HasSuffix(f.Name(), ".jsonl") || !info.Mode().IsRegular() {
			return nil, fmt.Errorf("%s/%s is no file of refusals", refusedDir, f.Name())
		}
		r.names = append(r.names, f.Name())
		r.sizes[f.Name()] = info.Size()
	}
	slices.Sort(r.names)
	return r, nil
}

// AppendRefused writes a record that a stranger caused. It is not in the log, not signed, and may be dropped to keep a quota;
// nothing is written while there is less free space than the reserve.
func (l *Log) AppendRefused(event string, record any) error {
	body, err := encodeRecord(event, record)
	if err != nil {
		return fmt.Errorf("writing record %q: %w", event, err)
	}
	r := l.refused
	r.mu.Lock()
	defer r.mu.Unlock()
	now := l.now()
	err = l.space.enough(now)
	if err == nil {
		line := append(appendEntry(nil, now, event, body), '\n')
		err = r.write(line, fmt.Sprintf("%s.jsonl", now.UTC().Format("20060102T150405.000000000Z")), func(d dropped) []byte {
			body, err := encodeRecord(EventDropped, d)
			if err != nil {
				return nil
			}
			return append(appendEntry(nil, now, EventDropped, body), '\n')
		})
	}
	if err != nil {
		r.lost++
		return fmt.Errorf("writing record %q: %w", event, err)
	}
	return nil
}

func (r *refusedFiles) write(line []byte, name string, note func(dropped) []byte) error {
	if r.file == nil || r.size+int64(len(line)) > r.quota/refusedPieces {
		notes, err := r.turn(name, note)
		if err != nil {
			return err
		}
		line = append(notes, line...)
	}
	n, err := r.file.Write(line)
	r.size += int64(n)
	r.sizes[r.names[len(r.names)-1]] = r.size
	return err
}

// turn begins a new file and drops old ones until it fits.
func (r *refusedFiles) turn(name string, note func(dropped) []byte) (notes []byte, err error) {
	if r.lost > 0 {
		notes = note(dropped{Records: r.lost})
	}
	var total int64
	for _, size := range r.sizes {
		total += size
	}
	for len(r.names) > 0 && total > r.quota-r.quota/refusedPieces {
		oldest := r.names[0]
		data, err := durable.ReadRegular(filepath.Join(r.dir, oldest), r.quota)
		if err != nil {
			return nil, err
		}
		if err := os.Remove(filepath.Join(r.dir, oldest)); err != nil {
			return nil, err
		}
		total -= r.sizes[oldest]
		r.names = r.names[1:]
		delete(r.sizes, oldest)
		notes = append(notes, note(dropped{File: oldest, Records: bytes.Count(data, []byte{'\n'}), Bytes: int64(len(data))})...)
	}
	f, err := os.OpenFile(filepath.Join(r.dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if r.file != nil {
		err = r.file.Close()
	}
	r.file, r.size, r.lost = f, 0, 0
	r.names = append(r.names, name)
	return notes, err
}

func (r *refusedFiles) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil {
		return nil
	}
	return errors.Join(r.file.Sync(), r.file.Close())
}

package audit

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"mayfly/internal/durable"
)

// Implementation constants of the journal.
const (
	journalDir  = "journal"
	frameHeader = 8       // length and CRC-32C, 4 bytes each, big endian
	maxSegment  = 1 << 20 // a segment that is longer is followed by a new one
	maxBatch    = 4 << 20 // of frames that are written at once
	maxReplay   = 512 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendFrame adds an entry to what is written to the journal.
func appendFrame(b, entry []byte) []byte {
	var head [frameHeader]byte
	binary.BigEndian.PutUint32(head[:4], uint32(len(entry)))
	binary.BigEndian.PutUint32(head[4:], crc32.Update(crc32.Checksum(head[:4], castagnoli), castagnoli, entry))
	return append(append(b, head[:]...), entry...)
}

// parseFrames cuts a segment into entries; rest is what follows the last whole frame.
func parseFrames(data []byte) (entries [][]byte, rest []byte) {
	for len(data) >= frameHeader {
		size := uint64(binary.BigEndian.Uint32(data))
		if size > MaxEntry || uint64(len(data)-frameHeader) < size {
			break
		}
		entry := data[frameHeader : frameHeader+size]
		if crc32.Update(crc32.Checksum(data[:4], castagnoli), castagnoli, entry) != binary.BigEndian.Uint32(data[4:]) {
			break
		}
		entries, data = append(entries, entry), data[frameHeader+size:]
	}
	return entries, data
}

// entryBegins is how every entry of this package begins.
var entryBegins = []byte(`{"time":"`)

// salvageFrames is parseFrames for a file that may be damaged anywhere: one bad sector, or a bit that has turned, must not take the frames behind
// it along, which were durable. lost is what belongs to no frame. No entry can pass for a frame: the length's first byte is 0, which JSON has not.
func salvageFrames(data []byte) (entries [][]byte, lost []byte) {
	entries, rest := parseFrames(data)
	for at := 0; at+frameHeader < len(rest); at++ {
		if rest[at] != 0 || !bytes.HasPrefix(rest[at+frameHeader:], entryBegins) {
			continue
		}
		more, after := parseFrames(rest[at:])
		if len(more) == 0 {
			continue
		}
		entries, lost = append(entries, more...), append(lost, rest[:at]...)
		rest, at = after, -1
	}
	return entries, append(lost, rest...)
}

// fdatasync puts what a file holds on disk; a test counts how often.
var fdatasync = unix.Fdatasync

// segment is the journal's file that is being written.
type segment struct {
	file  *os.File
	first uint64 // number of its first entry, and its name
	size  int64
}

func segmentPath(dir string, first uint64) string {
	return filepath.Join(dir, journalDir, fmt.Sprintf("%020d", first))
}

func createSegment(dir string, first uint64) (*segment, error) {
	f, err := os.OpenFile(segmentPath(dir, first), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syncDirs(map[string]bool{filepath.Join(dir, journalDir): true}); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &segment{file: f, first: first}, nil
}

// write makes frames durable. What could not be written whole is cut off again; if that fails, or if the disk did not
// take what was written, nobody knows what the file holds, and lost is true.
func (s *segment) write(frames []byte) (lost bool, err error) {
	if _, err = s.file.WriteAt(frames, s.size); err != nil {
		if terr := s.file.Truncate(s.size); terr != nil {
			return true, errors.Join(err, terr)
		}
		return false, err
	}
	for {
		if err = fdatasync(int(s.file.Fd())); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return true, fmt.Errorf("fdatasync: %w", err)
	}
	s.size += int64(len(frames))
	return false, nil
}

// replayed is what the journal holds beyond a checkpoint.
type replayed struct {
	entries  [][]byte
	torn     []byte   // what belongs to no whole frame
	segments []uint64 // all that were read
}

// segments lists the journal's files, oldest first.
func segments(dir string) ([]uint64, error) {
	files, err := os.ReadDir(filepath.Join(dir, journalDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []uint64
	for _, f := range files {
		first, err := strconv.ParseUint(f.Name(), 10, 63)
		if err != nil || len(f.Name()) != 20 {
			return nil, fmt.Errorf("%s/%s is no file of a journal", journalDir, f.Name())
		}
		all = append(all, first)
	}
	slices.Sort(all)
	return all, nil
}

// replay reads the journal from entry number size on.
func replay(dir string, size uint64) (replayed, error) {
	all, err := segments(dir)
	if err != nil {
		return replayed{}, err
	}
	r := replayed{segments: all}
	next, total := size, 0
	for _, first := range all {
		data, err := durable.ReadRegular(segmentPath(dir, first), maxSegment+maxBatch+maxBatch)
		if err != nil {
			return replayed{}, err
		}
		if total += len(data); total > maxReplay {
			return replayed{}, fmt.Errorf("the journal is longer than %d bytes", maxReplay)
		}
		entries, rest := salvageFrames(data)
		if first > next {
			return replayed{}, fmt.Errorf("the journal lacks records %d to %d: the log was changed", next, first-1)
		}
		if len(entries) > 0 {
			r.torn = nil // what was torn in an older file was noted in this one
		}
		r.torn = append(r.torn, rest...)
		if end := first + uint64(len(entries)); end > next {
			r.entries = append(r.entries, entries[next-first:]...)
			next = end
		}
	}
	return r, nil
}

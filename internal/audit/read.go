package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"mayfly/internal/durable"
	"mayfly/internal/inclusion"
)

// readAttempts is how often a reader begins anew when the writer has moved on under it.
const readAttempts = 10

// Read hands every record from this number on to yield, those that are durable and not signed yet included, and returns
// the number of the next one. It proves nothing: Verify does.
func Read(dir string, from uint64, yield func(index uint64, text []byte) error) (next uint64, err error) {
	next = from
	for range readAttempts {
		var size uint64
		if size, err = claimedSize(dir); err != nil {
			return next, err
		}
		if next, err = readBundles(dir, next, size, yield); err != nil {
			return next, err
		}
		var left replayed
		if left, err = replay(dir, size); err != nil {
			continue // the journal was tidied since: the checkpoint is a newer one
		}
		for i, entry := range left.entries {
			if index := size + uint64(i); index >= next {
				if err := yield(index, entry); err != nil {
					return next, err
				}
				next = index + 1
			}
		}
		return next, nil
	}
	return next, err
}

// readBundles reads the signed records [from, size).
func readBundles(dir string, from, size uint64, yield func(index uint64, text []byte) error) (next uint64, err error) {
	for from < size {
		b := tile{entries: true, index: from / tileWidth, width: int(min(size-from/tileWidth*tileWidth, tileWidth))}
		data, err := b.read(dir)
		if err != nil {
			return from, err
		}
		entries, err := parseBundle(data, b.width)
		if err != nil {
			return from, fmt.Errorf("%s: %w", b.path(), err)
		}
		for _, entry := range entries[from%tileWidth:] {
			if err := yield(from, entry); err != nil {
				return from, err
			}
			from++
		}
	}
	return from, nil
}

// ReadRefused hands every record of what strangers caused to yield, the oldest first. What a crash left half written is left out.
func ReadRefused(dir string, yield func(text []byte) error) error {
	files, err := os.ReadDir(filepath.Join(dir, refusedDir)) // in the order of their names, which are times
	if err != nil {
		return err
	}
	for _, f := range files {
		data, err := durable.ReadRegular(filepath.Join(dir, refusedDir, f.Name()), RefusedQuota)
		if missing(err) {
			continue // dropped since
		}
		if err != nil {
			return err
		}
		for line := range bytes.Lines(data) {
			text, whole := bytes.CutSuffix(line, []byte{'\n'})
			if _, err := ParseEntry(text); !whole || err != nil {
				continue
			}
			if err := yield(text); err != nil {
				return err
			}
		}
	}
	return nil
}

// claimedSize is the size that the checkpoint names, whoever signed it.
func claimedSize(dir string) (uint64, error) {
	data, err := durable.ReadRegular(filepath.Join(dir, checkpointFile), MaxCheckpoint)
	if err != nil {
		return 0, err
	}
	c, err := claimed(data)
	return c.Size, err
}

func claimed(data []byte) (Checkpoint, error) {
	text, _, found := strings.Cut(string(data), "\n\n")
	if !found {
		return Checkpoint{}, errors.New("malformed checkpoint: not signed")
	}
	return inclusion.ParseCheckpoint(text + "\n")
}

// IsLog reports whether a directory holds a log.
func IsLog(dir string) bool {
	info, err := os.Lstat(filepath.Join(dir, checkpointFile))
	return err == nil && info.Mode().IsRegular()
}

func missing(err error) bool { return errors.Is(err, fs.ErrNotExist) }

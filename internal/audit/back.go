package audit

import (
	"errors"
	"fmt"
	"slices"
)

// ErrEnough is what a reader returns who has read enough. It is not an error of reading.
var ErrEnough = errors.New("enough was read")

// ReadBack hands the records to yield from the newest on, those that are durable and not signed yet included, until there are no more or
// yield returns ErrEnough. It is for the one who has opened the log and writes nothing meanwhile, and proves nothing: Verify does.
func ReadBack(dir string, yield func(index uint64, text []byte) error) error {
	err := readBack(dir, yield)
	if errors.Is(err, ErrEnough) {
		return nil
	}
	return err
}

func readBack(dir string, yield func(index uint64, text []byte) error) error {
	size, err := claimedSize(dir)
	if err != nil {
		return err
	}
	left, err := replay(dir, size)
	if err != nil {
		return err
	}
	for i, entry := range slices.Backward(left.entries) {
		if err := yield(size+uint64(i), entry); err != nil {
			return err
		}
	}
	for size > 0 {
		first := (size - 1) / tileWidth * tileWidth
		b := tile{entries: true, index: first / tileWidth, width: int(size - first)}
		data, err := b.read(dir)
		if err != nil {
			return err
		}
		entries, err := parseBundle(data, b.width)
		if err != nil {
			return fmt.Errorf("%s: %w", b.path(), err)
		}
		for i, entry := range slices.Backward(entries) {
			if err := yield(first+uint64(i), entry); err != nil {
				return err
			}
		}
		size = first
	}
	return nil
}

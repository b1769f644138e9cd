package audit

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"
)

// TestReadBack reads logs of sizes around a bundle's from their end, signed and not, and stops where it is told to.
func TestReadBack(t *testing.T) {
	for _, size := range []int{0, 1, 255, 256, 257, 600} {
		dir := filepath.Join(t.TempDir(), "log")
		l, err := Open(Options{Dir: dir, Name: "lab/test", Reserve: 1})
		if err != nil {
			t.Fatal(err)
		}
		for i := range size {
			if err := l.Append("connection", map[string]int{"id": i}); err != nil {
				t.Fatal(err)
			}
		}
		for _, state := range []string{"open", "closed"} {
			if state == "closed" {
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
			}
			next := size
			if err := ReadBack(dir, func(index uint64, text []byte) error {
				next--
				e, err := ParseEntry(text)
				if err != nil || int(index) != next || string(e.Record) != fmt.Sprintf(`{"id":%d}`, next) {
					t.Fatalf("%d records, %s: record %d is %s, want number %d (%v)", size, state, index, text, next, err)
				}
				return nil
			}); err != nil || next != 0 {
				t.Errorf("%d records, %s: %d were not read: %v", size, state, next, err)
			}
		}
		seen := 0
		if err := ReadBack(dir, func(uint64, []byte) error { seen++; return ErrEnough }); err != nil || seen != min(size, 1) {
			t.Errorf("%d records: %d were read by who wants one: %v", size, seen, err)
		}
	}
	broken := errors.New("broken")
	if err := ReadBack(t.TempDir(), func(uint64, []byte) error { return broken }); !missing(err) {
		t.Errorf("no log: %v", err)
	}
}

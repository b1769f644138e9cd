package rotate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"mayfly/policies"
)

// fakeLedger notes which ends it was told.
type fakeLedger struct {
	mu   sync.Mutex
	told []string
	err  error
}

func (f *fakeLedger) End(ctx context.Context, server string, through uint64, reason string) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.told = append(f.told, fmt.Sprintf("%s %d %s", server, through, reason))
	return true, f.err
}

// TestEndsAreTold: the ledger hears of each life that was read back as off, and a ledger that is away keeps nobody.
func TestEndsAreTold(t *testing.T) {
	b := testBundle("se-1", "se-2")
	dir, w := serving(t, b)
	r := testRunner(t, dir, b)
	defer r.Store.Close()
	book := &fakeLedger{err: errors.New("away")}
	r.Ledger, r.Stuck = book, 50*time.Millisecond
	if result, err := r.Run(t.Context(), all(b)); err != nil || result.Result != "done" {
		t.Fatalf("got %+v, %v", result, err)
	}
	slices.Sort(book.told)
	if want := []string{"se-1 1 rotated", "se-2 1 rotated"}; !slices.Equal(book.told, want) {
		t.Errorf("told %q, want %q", book.told, want)
	}
	// One that does not come up again is a failure, each time.
	w.mu.Lock()
	w.deny["se-1"] = "release_unsigned"
	w.mu.Unlock()
	b.Policy.Rotation.DrainLimit = policies.Duration(time.Millisecond)
	book.told, book.err = nil, nil
	if _, err := r.Run(t.Context(), all(b)); err == nil {
		t.Fatal("want se-1 quarantined")
	}
	if want := []string{"se-1 2 rotated", "se-1 3 failed", "se-1 4 failed"}; !slices.Equal(book.told, want) {
		t.Errorf("told %q, want %q", book.told, want)
	}
}

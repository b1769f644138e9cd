package authority

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mayfly/policies/request"
)

// reason is the code of a refused request, or what else went wrong.
func reason(err error) string {
	if err == nil {
		return ""
	}
	if r, ok := errors.AsType[*request.Refusal](err); ok {
		return r.Reason
	}
	return err.Error()
}

// TestUsed: what is remembered is bounded, and forgotten a day after its end.
func TestUsed(t *testing.T) {
	u, err := OpenUsed(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC()
	r := request.New("lab", request.Drain("se-1", time.Minute), "x", now, time.Hour)
	spend := func(at time.Time) string { return reason(u.Spend(r, at)) }
	if got := spend(now); got != "" {
		t.Fatal(got)
	}
	if got := spend(now); got != request.Used {
		t.Errorf("again: got %q", got)
	}
	r.Expires = r.Expires.Add(time.Second)
	if got := spend(r.Expires.Add(usedFor - 2*time.Second)); got != request.Used {
		t.Errorf("another request of this nonce: got %q", got)
	}
	other := r
	for i := range maxUsed - 1 {
		name := fmt.Sprintf("%d-%032x", now.Add(time.Hour).Unix(), i)
		if err := os.WriteFile(filepath.Join(u.dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	other.Nonce = strings.Repeat("f", 32)
	if got := reason(u.Spend(other, now)); got != request.TooMany {
		t.Errorf("with %d remembered: got %q", maxUsed, got)
	}
	if got := reason(u.Spend(other, now.Add(time.Hour+usedFor+2*time.Second))); got != "" {
		t.Errorf("a day after their end: got %q", got)
	}
	left, err := os.ReadDir(u.dir)
	if err != nil || len(left) != 1 {
		t.Errorf("%d are remembered, %v; want 1", len(left), err)
	}
}

package ledger

import (
	"os"
	"strings"
	"testing"
)

// TestCodesAreDocumented: docs/formats/ledger.md has each code of a violation.
func TestCodesAreDocumented(t *testing.T) {
	data, err := os.ReadFile("../../docs/formats/ledger.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, code := range []string{EntryMalformed, TimeBack, TrustUnknown, TrustBack, ReleaseForked, ReleaseUnlogged, ReleaseFrozen, LifeTooLong, LifeTime,
		LifeEvidence, LivesOverlap, EpochNotRising, EndUnknown} {
		if !strings.Contains(string(data), "`"+code+"`") {
			t.Errorf("%s is not on the page", code)
		}
	}
}

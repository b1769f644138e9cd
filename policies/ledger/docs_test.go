package ledger

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

// TestLedgerIsDocumented: docs/formats/ledger.md has a row for each event with each field of its record, each reason of an end, each evidence
// and each code of a client's refusal.
func TestLedgerIsDocumented(t *testing.T) {
	data, err := os.ReadFile("../../docs/formats/ledger.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(data)
	for event, record := range map[string]reflect.Type{EventTrust: reflect.TypeFor[Trust](), EventRelease: reflect.TypeFor[Release](),
		EventBegin: reflect.TypeFor[Begin](), EventEnd: reflect.TypeFor[End]()} {
		_, row, found := strings.Cut(page, "\n| `"+event+"` |")
		row, _, _ = strings.Cut(row, "\n")
		at := 0
		for _, f := range reflect.VisibleFields(record)[1:] { // after kind
			name := "`" + f.Tag.Get("json") + "`"
			i := strings.Index(row[at:], name)
			if i < 0 {
				t.Errorf("%s: %s is not in its row, or not in its place", event, name)
				continue
			}
			at += i
		}
		if !found {
			t.Errorf("no row for %s", event)
		}
	}
	for _, word := range append(append([]string{EventTorn, NotLogged, NotAttested, LifeOver, Split, Unlogged}, reasons...), evidences...) {
		if !strings.Contains(page, "`"+word+"`") {
			t.Errorf("%s is not on the page", word)
		}
	}
}

package web

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

// TestPageIsDocumented: docs/formats/page.md has each field of the view, each parameter's state, and each code.
func TestPageIsDocumented(t *testing.T) {
	data, err := os.ReadFile("../../docs/formats/page.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := string(data)
	for _, row := range []struct {
		name string
		of   reflect.Type
	}{
		{"totals", reflect.TypeFor[Totals]()}, {"regions", reflect.TypeFor[Region]()}, {"floors", reflect.TypeFor[RoleFloor]()}, {"plan", reflect.TypeFor[Plan]()}, {"train", reflect.TypeFor[Train]()},
		{"releases", reflect.TypeFor[Release]()}, {"quarantine", reflect.TypeFor[Quarantined]()}, {"controllers", reflect.TypeFor[Controller]()}, {"pause", reflect.TypeFor[Pause]()}, {"run", reflect.TypeFor[Run]()},
		{"alerts", reflect.TypeFor[Alert]()}, {"ledger", reflect.TypeFor[Ledger]()}, {"ages", reflect.TypeFor[Age]()}, {"servers", reflect.TypeFor[Server]()},
	} {
		_, rest, found := strings.Cut(doc, "\n| `"+row.name+"` |")
		rest, _, _ = strings.Cut(rest, "\n")
		if !found {
			t.Errorf("no row for %s", row.name)
		}
		for _, f := range reflect.VisibleFields(row.of) {
			if tag := f.Tag.Get("json"); tag != "" && !strings.Contains(rest, "`"+tag+"`") {
				t.Errorf("%s: %s is not in its row", row.name, tag)
			}
		}
	}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[View]()) {
		if tag := f.Tag.Get("json"); tag != "" && !strings.Contains(doc, "`"+tag+"`") {
			t.Errorf("%s is not on the page", tag)
		}
	}
	for _, code := range []string{NoCertificate, OtherCA, NotForClients, Ended, NamesNobody, EngineerUnknown, KeyUnknown, NotOperator, NoPolicy, NoAudit, MethodRefused, BodyRefused, PathUnknown, NotReady, Busy, NoProof,
		QueryMalformed, QueryUnknown, QueryRepeated, QueryValue} {
		if !strings.Contains(doc, "`"+code+"`") {
			t.Errorf("code %s is not on the page", code)
		}
	}
	for code := range sentences {
		if !strings.Contains(doc, "`"+code+"` |") {
			t.Errorf("%s has a sentence and no row", code)
		}
	}
	for _, k := range Kinds {
		if !strings.Contains(doc, "`"+string(k)+"`") {
			t.Errorf("state %s is not on the page", k)
		}
	}
}
